"""Training data: files into records, records into tokens with the spans that are trained.

Nothing in here imports MLX, and numpy, jinja2 and transformers only inside functions: data is read and tokenized before
MLX may be loaded. The tokenizer is an argument.
"""

from mlxops.data.formats import Record
from mlxops.data.preparing import ROWS_AT_ONCE, Part, Preparation, PreparedRow, WordTokens
from mlxops.data.reading import HeldOut, Splits, read, read_held_out
from mlxops.data.tokens import MASKING_RULES, Tokenized, Use, content_identity, identity, tokenize

__all__ = [
    "MASKING_RULES",
    "ROWS_AT_ONCE",
    "HeldOut",
    "Part",
    "Preparation",
    "PreparedRow",
    "Record",
    "Splits",
    "Tokenized",
    "Use",
    "WordTokens",
    "content_identity",
    "identity",
    "read",
    "read_held_out",
    "tokenize",
]

"""Training data: files into records, records into tokens with the spans that are trained.

Nothing in here imports MLX, and numpy, jinja2 and transformers only inside functions: data is read and tokenized before
MLX may be loaded. The tokenizer is an argument.
"""

from mlxops.data.formats import Record
from mlxops.data.reading import Splits, read
from mlxops.data.tokens import MASKING_RULES, Tokenized, Use, content_identity, identity, tokenize

__all__ = ["MASKING_RULES", "Record", "Splits", "Tokenized", "Use", "content_identity", "identity", "read", "tokenize"]

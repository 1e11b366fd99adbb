"""`transformers` reads the files of its models once, and knows the same names of them as when it reads them twice."""

from __future__ import annotations

import json

import pytest
from commands import run_python

_PROGRAM = """
import json, sys
from pathlib import Path
from mlxops.models.transformers_models import import_models

scanned = []
sys.addaudithook(lambda event, words: event == "os.scandir" and scanned.append(str(words[0])))
import_models()
import transformers
from transformers.utils import import_utils

models, folder = transformers.models, Path(transformers.__file__).parent / "models"
scans = scanned.count(str(folder))
init = str(folder / "__init__.py")
read_again = type(models)("again", init, import_utils.define_import_structure.__wrapped__(init))
modules = [{name: sorted(each) for name, each in made._import_structure.items()} for made in (models, read_again)]
print(json.dumps({
    "scans": [scans, scanned.count(str(folder))],
    "are equal": [modules[0] == modules[1], models._class_to_module == read_again._class_to_module],
    "modules": len(modules[0]),
    "a class": models.llama.LlamaConfig.__name__,
}))
"""


@pytest.mark.slow
def test_the_files_of_the_models_are_read_once_and_give_the_same_names() -> None:
    code, out, err = run_python("-c", _PROGRAM)

    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found.pop("modules") > 300
    assert found == {"scans": [1, 2], "are equal": [True, True], "a class": "LlamaConfig"}


_OTHER_VERSION = """
from transformers.utils import import_utils
import transformers

read = import_utils.define_import_structure
del import_utils.define_import_structure
from mlxops.models import transformers_models

taken = []
transformers_models.import_module = lambda name: taken.append(name) or __import__(name, fromlist=["_"])
real = __import__("sys").modules.pop("transformers.models", None)
try:
    transformers_models.import_models()
except ImportError as error:  # of this version's own `models`, which needs what was taken away
    taken.append(type(error).__name__)
print(taken[2])
"""


@pytest.mark.slow
def test_a_version_that_reads_them_in_another_way_is_imported_as_it_is() -> None:
    code, out, err = run_python("-c", _OTHER_VERSION)

    assert (code, out.strip(), err) == (0, "transformers.models", "")

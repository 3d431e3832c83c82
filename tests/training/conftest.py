import pytest
from tokenizers import Tokenizer

from farspan import reference
from farspan.reference.corpus import training_files
from training.feed import load_mixture
from training.mixture import Mixture

TOKENIZER = reference.path() / "tokenizer.json"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER))


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    """Over few files: enough text for every length, little enough to tokenise at once."""
    names = {"difflib.py", "doctest.py", "pathlib.py", "shutil.py", "threading.py", "subprocess.py", "inspect.py"}
    return load_mixture(TOKENIZER, [file for file in training_files() if file.name in names])

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import fingerprint, tokenizer_fields
from lm_eval_calibration.records import Record
from lm_eval_calibration.results.certificates import tokenizer
from lm_eval_calibration.tasks import CalibratedTask


def test_copies_share_it_and_other_vocabularies_do_not(byte_tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    byte_tokenizer.save_pretrained(tmp_path)
    assert fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == fingerprint(byte_tokenizer)
    other = copy.deepcopy(byte_tokenizer)
    other.add_tokens(["new"])
    assert fingerprint(other) != fingerprint(byte_tokenizer)
    turned = {token: len(byte_tokenizer) - 1 - number for token, number in byte_tokenizer.get_vocab().items()}
    assert fingerprint(_Fake(turned)) != fingerprint(byte_tokenizer)
    assert fingerprint(_Fake(byte_tokenizer.get_vocab())) == fingerprint(byte_tokenizer)


class _Fake:
    def __init__(self, vocab: dict[str, int]) -> None:
        self.vocab = vocab

    def get_vocab(self) -> dict[str, int]:
        return self.vocab


def test_a_backend_without_a_tokenizer_says_so() -> None:
    assert tokenizer_fields(SimpleNamespace(tokenizer=None, tokenizer_name="")) == {"tokenizer": "unknown"}


@pytest.mark.slow
def test_one_model_in_two_folders_is_one_tokenizer(byte_tokenizer: Any, tmp_path: Path) -> None:
    """Through the run: full_ece of the two is comparable."""
    names = []
    for folder in ("a", "b"):
        byte_tokenizer.save_pretrained(tmp_path / folder)
        tiny.make_gpt2(byte_tokenizer).save_pretrained(tmp_path / folder)
        lm = HFLM(pretrained=str(tmp_path / folder), device="cpu", batch_size=4)
        results = tiny.run_tasks(lm, [CalibratedTask(tiny.make_config(tiny.make_rows(3)))])
        records = [Record.from_dict(sample["calibration"]) for sample in results["samples"]["letters_calibration"]]
        assert str(tmp_path / folder).replace("/", "__") in records[0].certificate["tokenizer"]
        names.append(tokenizer(records))
    assert names[0] == names[1] is not None

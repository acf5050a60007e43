"""What the real SmolLM2-135M writes: the stock run's text, and probabilities that a second look confirms."""

from typing import Any

import numpy as np
import pytest
import torch
from generation_tasks import PROMPTS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import generation_requests

from lm_eval_calibration import backends as scoring

pytestmark = [pytest.mark.slow, pytest.mark.real_model]


def make_requests(prompts: list[str]) -> list[Instance]:
    return generation_requests(prompts, {"until": ["\n\n", ". "], "max_gen_toks": 8, "do_sample": False})


@pytest.mark.parametrize(("batch_size", "prompts"), [(1, PROMPTS[::3]), (4, PROMPTS[1::3])])
def test_texts_are_stock_s_and_ptot_is_rescored(
    smollm2_lm: HFLM, batch_size: int, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2_lm, "batch_size_per_gpu", batch_size)
    rows: dict[str, list[int]] = {}
    generate = smollm2_lm.model.generate

    def watched(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        sequences = generate(input_ids=input_ids, **options)
        for context, row in zip(input_ids.tolist(), sequences.tolist(), strict=True):
            rows[smollm2_lm.tok_decode(context)] = row[len(context) :]
        return sequences

    stock = smollm2_lm.generate_until(make_requests(prompts))
    monkeypatch.setattr(smollm2_lm.model, "generate", watched)
    found = scoring.generated_texts(smollm2_lm, make_requests(prompts))
    assert list(map(str, found)) == stock
    assert len(set(map(len, found))) > 5
    for prompt, text in list(zip(prompts, found, strict=True))[:: 1 if batch_size == 4 else 5]:
        context, tokens = smollm2_lm.tok_encode(prompt), rows[prompt][: len(text.token_log_probs)]
        assert smollm2_lm.tok_decode(tokens).startswith(text)
        with torch.no_grad():
            logits = smollm2_lm.model(torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1].double()
        expected = logits.log_softmax(-1)[range(len(tokens)), tokens].numpy()
        np.testing.assert_allclose(text.token_log_probs, expected, rtol=0, atol=1e-4)
        assert np.exp(text.token_log_probs.sum()) == pytest.approx(np.exp(expected.sum()), abs=1e-4)
        for start in range(0, len(text), 3):  # any part of it: the tokens of a final answer
            span = scoring.tokens_of_span(text.token_ends, start, min(start + 4, len(text)))
            assert text[start : start + 4] in smollm2_lm.tok_decode(tokens[span])
            found_sum, expected_sum = text.token_log_probs[span].sum(), expected[span].sum()
            assert np.exp(found_sum) == pytest.approx(np.exp(expected_sum), abs=1e-4)

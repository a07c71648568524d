"""Samples from a model between two of its updates, as engine transformers does elsewhere."""

from typing import Any

from peft import PeftModel

from selfrefine.engines.decoding import Decoder
from selfrefine.engines.kv_cache import NAME, refusal
from selfrefine.engines.stop_strings import StopStrings
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.schema.generation import Generation


class LearningEngine(TransformersEngine):
    """Engine transformers on a model that is being trained; the model is given back as it was."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int):
        # An adapter is applied by the layers that it is in.
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        was_training = base.training
        super().__init__(base, tokenizer, {}, batch_size)
        base.train(was_training)

    def sample(
        self, prompts: list[list[int]], seeds: list[int], generation: Generation, stop: list[str]
    ) -> list[list[int]]:
        """The token ids that follow each prompt, the stop token included where there was one."""
        asked, strings = [tuple(prompt) for prompt in prompts], StopStrings(self.tokenizer, stop)
        was_training = self.model.training
        self.model.eval()
        try:
            if refusal(self.model, max(map(len, asked)) + generation.max_tokens):
                return self._with_generate(asked, seeds, generation, strings)
            self._attend_with(NAME)
            decoder = Decoder(self.model, self.batch_size, self.stop_ids, self.tokenizer.pad_token_id, strings)
            return decoder.run(asked, seeds, generation)
        finally:
            self._attend_with(self.own_attention)
            self.model.train(was_training)

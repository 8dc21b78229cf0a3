"""A method as a package: pip install --no-build-isolation ./examples/fer-bench-minimal; fer-bench show tempered"""

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

card = MethodCard(
    name="tempered",
    title="Cross-entropy at another temperature",
    family="loss",
    changes="cross-entropy of the logits divided by the temperature T",
    params={"temperature": Param(2.0, "T; 1 is cross-entropy", low=0.1, high=100.0, space=Float(0.5, 4.0))},
)


class Tempered(Method):
    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        return F.cross_entropy(output.logits.float() / self.params["temperature"], target)

"""RASN in a clean form: attention and shared affinity features, with predictions that read one image alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from fer_bench import Arm, Batch, Insight, LossOut, Method, MethodCard, Output, Stage, StreamSpec, Trunk

from ._rasn.sharing_net import build_sharing_classifier
from ._rasn.switches import SWITCHES
from ._shared.losses import inverse_weights, relative
from ._shared.priors import log_prior, shifted_losses
from ._shared.samplers import BalancedCapped

card = MethodCard(
    name="rasn",
    title="Residual Attentive Sharing Network, clean reconstruction",
    paper="Yang et al., RASN: Using Attention and Sharing Affinity Features to Address Sample Imbalance in Facial "
    "Expression Recognition, IEEE Access 10, 2022",
    year=2022,
    url="https://doi.org/10.1109/ACCESS.2022.3210109",
    family="architecture",
    changes="residual CBAM on the last map; its batch mean (affinity), attended, is added to every sample's map",
    deviations=(
        "reconstruction: the paper's equations and code are not public; built from its abstract and from ARM "
        "(arXiv 2103.10189), every guess is a parameter",
        "evaluation uses an affinity stored in training; ARM's code, RASN's likely model, reads the test batch",
        "eval.affinity=test_batch is ARM's published mechanism; benchmarks/test_batches.py measures what it gains from "
        "the order of the test images",
        "with the defaults, sharing shifts all logits by one constant vector at inference, and what it passes back in "
        "training is the gradient of the head's bias, which vanishes at the bias's optimum (docs/rasn.md)",
        "class_prototypes, dictionary, attend and layer3 are ours, not the paper's: forms that act on each image at "
        "inference without reading the test batch",
        "pretraining, image size, optimiser and augmentation are the study's recipe, not the paper's (unknown)",
    ),
    needs=("feature map",),
    params=SWITCHES,
    arms={
        "plain": Arm("baseline_resnet"),
        "attention": Arm("rasn[share.source=none]", to="plain", adds="attention"),
        "sharing": Arm("rasn[attn.type=none]", to="plain", adds="sharing"),
        "both": Arm("rasn", to="attention", adds="sharing beside attention", control="own_added"),
        "both_detached": Arm("rasn[share.detach=true]", to="attention", adds="sharing without its gradient"),
        "no_affinity_at_evaluation": Arm("rasn[eval.affinity=none]", to="attention", adds="sharing in training only"),
        "own_added": Arm("rasn[share.source=own]", to="attention", adds="the weights of the mean's sharing alone"),
        "own": Arm(
            "rasn[share.source=own,share.fusion=attend,attn.place=after_layer4]",
            to="attention",
            adds="the weights of the prototypes' sharing alone",
        ),
        "own_projection": Arm(
            "rasn[share.source=own_projection,share.fusion=attend,attn.place=after_layer4]",
            to="attention",
            adds="a linear layer as large as the dictionary",
        ),
        "prototypes": Arm(
            "rasn[share.source=class_prototypes,share.fusion=attend,attn.place=after_layer4]",
            to="attention",
            adds="recalled class prototypes",
            control="own",
        ),
        "prototypes_layer3": Arm(
            "rasn[share.source=class_prototypes,share.fusion=attend,attn.place=after_layer4,share.level=layer3]",
            to="attention",
            adds="class prototypes before the last stage",
        ),
        "dictionary": Arm(
            "rasn[share.source=dictionary,share.fusion=attend,attn.place=after_layer4]",
            to="attention",
            adds="recalled atoms",
            control="own_projection",
        ),
        "balanced": Arm("rasn[share.source=none,sampler=balanced_capped]", to="attention", adds="a balanced sampler"),
        "prototypes_balanced": Arm(
            "rasn[share.source=class_prototypes,share.fusion=attend,attn.place=after_layer4,sampler=balanced_capped]",
            to="balanced",
            adds="prototypes beside a balanced sampler",
        ),
        "adjusted": Arm("rasn[share.source=none,loss.tau=1]", to="attention", adds="logit adjustment"),
        "prototypes_adjusted": Arm(
            "rasn[share.source=class_prototypes,share.fusion=attend,attn.place=after_layer4,loss.tau=1]",
            to="adjusted",
            adds="prototypes beside logit adjustment",
        ),
    },
)


class RASN(Method):
    """Attention -> affinity -> sharing -> linear head; cross-entropy."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """Network of the chosen switches; SpecError where they don't fit the backbone or one another."""
        return build_sharing_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, self.params)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream: shuffled, or balanced by class."""
        balanced = self.params["sampler"] == "balanced_capped"
        return {"main": StreamSpec(sampler=BalancedCapped()) if balanced else StreamSpec()}

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch; the labels reach the network here only, for the class-balanced affinity."""
        output = model(batch.x, batch.y)
        return LossOut(total=self.batch_loss(output, batch), output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the logits, shifted by τ log π, of each image [B]."""
        return shifted_losses(output.logits, target, self.params["loss.tau"] * log_prior(self.ctx.counts))

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class over their mean [B], where the sampler switch says so."""
        if self.params["sampler"] != "class_weighted_ce":
            return None
        return relative(batch.expected(inverse_weights(self.ctx.counts)))

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the training fold's means, where evaluation uses them."""
        if self.params["eval.affinity"] == "train_set_mean" and self.params["share.source"] != "none":
            model.store_train_mean(batches())  # type: ignore[operator]

    def insight(self, model: nn.Module, x: Tensor) -> Insight:
        """The maps of the attention, and the prototypes or atoms that each face recalls."""
        maps, shares = model.looks(x)  # type: ignore[operator]
        if shares is None:
            return Insight(maps=maps)
        atoms = tuple(f"atom {k}" for k in range(1, shares.shape[1] + 1))
        return Insight(
            maps=maps,
            shares=shares,
            sources=self.ctx.classes if self.params["share.source"] == "class_prototypes" else atoms,
        )

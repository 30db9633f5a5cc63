"""Training in the report: losses by epoch, validation, and who moves the shared backbone."""

from pathlib import Path

import pandas as pd

from hpl.reports.content import Figure, Section
from hpl.reports.figures import draw_curves

_TRAINING = "train.csv"
_CURVES = {"pretraining": "pretrain.csv", "stage I, prompts": "construct_prompts.csv", "stage II, training": _TRAINING}
_COSINES = {
    "task_cosine": "gradients of both tasks",
    "mean_cosine": "v_i2i of different people",
    "instance_cosine": "pseudo-tokens of different pictures",
}
_WHAT = (
    "Measured every `train.diagnose_steps` steps of stage II, mean of the epoch. Left: the norm of each loss's gradient on the "
    "blocks of the image tower, which both tasks share, before Adam. Right: cosines. Below zero between the gradients, "
    "one task's step undoes the other's (the conflict of the paper's Fig. 1a); near one between features of different people, "
    "they lie in one direction; near one between pseudo-tokens, the prompts tell no picture from another."
)


def curves_section(folder: Path, figures: Path) -> Section:
    """Draw the losses of each training, and its figures on the validation split where there are any."""
    pictures, words = [], []
    for title, name in _CURVES.items():
        table, stem = pd.read_csv(folder / name), Path(name).stem
        validated = [name for name in table if name.startswith("val_")]
        known = table.loc[:, :"total"] if "total" in table else table  # behind the total stands what a diagnosis measured
        losses = known[[name for name in known if name not in {"lr", *validated}]]
        path = figures / f"curves_{stem}.png"
        if (losses.drop(columns="epoch") != 0).any(axis=None):
            draw_curves(title, losses, "loss, mean of the epoch", path)
            pictures.append((path, f"Losses by epoch: {title}"))
        if table[validated].notna().any(axis=None):
            names = {name: name.removeprefix("val_").replace("_", " ") for name in validated}
            path = figures / f"curves_{stem}_validation.png"
            table = table[["epoch", *validated]].rename(columns=names)
            draw_curves(f"{title}: validation", table, "percent", path, logarithmic=False)
            pictures.append((path, f"Figures on the validation split by epoch: {title}"))
            words = ["Validation has people and a gallery of its own: its figures do not compare with those of the test split."]
    return Section("Curves", [*words, Figure(pictures)], short=True)


def diagnosis_section(folder: Path, figures: Path) -> list[Section]:
    """Draw what stage II measured of its gradients and features; nothing if it measured nothing."""
    table = pd.read_csv(folder / _TRAINING)
    gradients = {name: name.removeprefix("gradient_") for name in table if name.startswith("gradient_")}
    cosines = {name: words for name, words in _COSINES.items() if name in table}
    pictures = []
    for names, title, label, stem in (
        (gradients, "gradients on the shared blocks", "norm, mean of the epoch", "gradients"),
        (cosines, "cosines", "mean of the epoch", "cosines"),
    ):
        measured = [name for name in names if table[name].notna().any()]
        if measured:
            path = figures / f"diagnosis_{stem}.png"
            shown = table[["epoch", *measured]].rename(columns=names)
            draw_curves(f"stage II: {title}", shown, label, path, logarithmic=names is gradients)
            pictures.append((path, f"Stage II by epoch: {title}"))
    return [Section("Who moves the backbone", [_WHAT, Figure(pictures)], short=True)] if pictures else []

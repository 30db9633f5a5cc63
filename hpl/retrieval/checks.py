"""The one check of parameters against what preprocess read: all that would end or spoil a later stage, said before it starts.

`python -m hpl.retrieval.checks data/manifests` asks without running anything. What parameters alone tell is in hpl/config.py.
"""

import sys
from pathlib import Path

from hpl.config import Params, load_params
from hpl.files import HplError, read_json, run_stage
from hpl.manifests.tables import MADE_WITH, Manifests, made_with
from hpl.retrieval.sets import read_validation_sets
from hpl.tasks import I2I, T2I


def check_manifests(params: Params, tables: Manifests) -> list[str]:
    """Return what a user should know before hours of training; HplError lists every fault that would end a stage."""
    remarks, uses = [], {use for account in tables.datasets.values() for use in account["use"]}
    if "test" not in uses:
        remarks.append(
            "no data set has `use: [test]`: baselines, evaluate and report cannot run; `dvc repro train` stops before them"
        )
    if "train" not in uses:
        remarks.append("no data set has `use: [train]`: nothing after the pretrain stage can run")
    refuse([*pretraining_faults(params, tables), *(training_faults(params, tables) if "train" in uses else [])])
    scored = {task for account in tables.datasets.values() for task in account["scored"]}
    if "test" in uses:
        remarks += [f"{task} is trained, but no test split can be scored for it" for task in params.tasks if task not in scored]
    return remarks + (_training_remarks(params, tables) if "train" in uses else [])


def refuse(faults: list[str]) -> None:
    """Raise HplError that lists the faults, if there are any."""
    if faults:
        raise HplError("\n  ".join(faults if len(faults) == 1 else [f"{len(faults)} faults", *faults]))


def pretraining_faults(params: Params, tables: Manifests) -> list[str]:
    """List why the pretrain stage could not run."""
    options, count = params.active.pretrain, int((tables.captions["role"] == "pretrain").sum())
    if not options.epochs:
        return []
    key = f"profiles.{params.profile}.pretrain"
    if not count:
        return [
            f"{key}.epochs = {options.epochs}, but no caption is left in the sets with use: [pretrain]; expected captions of "
            "people who are in no test split, or 0 epochs"
        ]
    return _process_faults(params.num_processes, {f"{key}.batch_size": min(options.batch_size, count)})


def training_faults(params: Params, tables: Manifests) -> list[str]:
    """List why the stages from cache_features to train could not run, or could not do what the parameters say."""
    pictures, num_captions = tables.images[tables.images["role"] == "train"], int((tables.captions["role"] == "train").sum())
    num_people = pictures["pid"].nunique()
    if num_people < 2:
        return [
            f"{num_people} people are left to train on; expected two or more in sets with use: [train] who are in no test split "
            "(data/manifests/audit.json says who left)"
        ]
    faults = []
    if T2I.name in params.tasks and num_captions < 2:
        faults.append(
            f"tasks holds {T2I.name}, but the {len(pictures):,} training pictures have {num_captions} captions; expected "
            f"captions, or tasks: [{I2I.name}]"
        )
    faults += _selection_faults(params, tables)
    return faults + _process_faults(params.num_processes, _rows_of_a_step(params, tables))


def _selection_faults(params: Params, tables: Manifests) -> list[str]:
    train, key = params.active.train, f"profiles.{params.profile}"
    if train.selection != "best" and not train.patience:
        return []
    chosen = "selection = best" if train.selection == "best" else f"patience = {train.patience}"
    return [
        f"{key}.train.{chosen} needs validation people for {task}, and {why}; expected a val split of people who are in no "
        f"other, {key}.data.val_share above 0, or selection: last and patience: 0"
        for task, why in _unmeasured(params, tables).items()
    ]


def _unmeasured(params: Params, tables: Manifests) -> dict[str, str]:
    """Say for each trained task that validation cannot measure why not."""
    measured = {task.name for each in read_validation_sets(tables) for task in each.tasks}
    return {task: why_unmeasured(task, tables) for task in params.tasks if task not in measured}


def why_unmeasured(task: str, tables: Manifests) -> str:
    """Say why no validation set can measure a task."""
    serving = tables.images["dataset"].isin(tables.serving(task, "train"))
    split = tables.images[serving & (tables.images["split"] == "val") & (tables.images["person"] != "")]
    count, left = split["person"].nunique(), split[split["role"] == "val"]
    if not count:
        return "no set that serves it has any"
    if left.empty:
        return f"all {count:,} people of val, such as {split['person'].min()}, are in training or in a test split too"
    needed = "a caption" if task == T2I.name else "another picture to find, by another camera where cameras are known"
    return f"none of {left['person'].nunique():,} has {needed}"


def _rows_of_a_step(params: Params, tables: Manifests) -> dict[str, int]:
    """Count how many rows a step of stage II has of each half that is trained."""
    options, pictures = params.active.train, tables.images[tables.images["role"] == "train"]
    rows = {}
    if T2I.name in params.tasks:
        rows["t2i_batch"] = min(options.t2i_batch, int((tables.captions["role"] == "train").sum()))
    if I2I.name in params.tasks:
        people = pictures[pictures["dataset"].isin(tables.serving(I2I.name, "train"))]
        num_people = (people if len(people) else pictures)["pid"].nunique()
        rows["i2i_batch"] = min(options.i2i_batch // options.num_instances, num_people) * options.num_instances
    return {f"profiles.{params.profile}.train.{name}": count for name, count in rows.items()}


def _process_faults(num_processes: int, rows: dict[str, int]) -> list[str]:
    return [
        f"num_processes = {num_processes}, but a step has only {count} rows of {key}; expected at most as many processes"
        for key, count in rows.items()
        if 0 < count < num_processes
    ]


def _training_remarks(params: Params, tables: Manifests) -> list[str]:
    options, pictures = params.active.train, tables.images[tables.images["role"] == "train"]
    wanted = {f"profiles.{params.profile}.train.{name}": getattr(options, name) for name in ("t2i_batch", "i2i_batch")}
    remarks = [
        f"{key} = {wanted[key]}, but there are too few training {what}: a step has {count}"
        for key, count in _rows_of_a_step(params, tables).items()
        for what in ["captions" if key.endswith("t2i_batch") else "people"]
        if count < wanted[key]
    ]
    if I2I.name in params.tasks and not pictures["pid"].duplicated().any():
        remarks.append(
            f"no training person has two pictures: {I2I.name} learns nothing from num_instances = {options.num_instances}"
        )
    if options.validate_epochs and (tables.images["split"] == "val").any():
        remarks += [f"validation does not measure {task}: {why}" for task, why in _unmeasured(params, tables).items()]
    return remarks


def _main() -> None:
    folder, *overrides = sys.argv[1:]
    params = load_params(overrides=overrides)
    manifests = Path(folder)
    file = manifests / MADE_WITH
    if not file.is_file() or read_json(file) != made_with(params):
        print("the data were not checked: preprocess has not yet read them with these parameters (dvc repro preprocess)")
        return
    for remark in check_manifests(params, Manifests(manifests)):
        print(remark)
    print("the data, as preprocess read them last, fit the parameters")


if __name__ == "__main__":
    run_stage(_main)

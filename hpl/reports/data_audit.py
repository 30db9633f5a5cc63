"""reports/data_audit.md and .json: what was read from which data set, what was linked, dropped, skipped, and what looks odd."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.files import output_folder, read_json, write_json, write_text
from hpl.manifests.tables import Manifests
from hpl.reports.content import Table, markdown
from hpl.reports.figures import draw_pairs, draw_sizes

_NUM_PAIRS = 4  # linked pairs shown of each kind
_NUM_FINDINGS = 5  # of each kind of finding, in the page; the JSON has more
_NUM_SKIPPED = 50  # skipped pictures in the page


def write_data_audit(
    manifests: Path, token_lengths: np.ndarray, context_length: int, page: Path, content: Path, figures: Path
) -> None:
    """Render the page, the JSON and the folder of figures.

    Args:
        token_lengths: of every caption, in the order of captions.parquet, begin and end of text included.
        context_length: tokens at which captions are cut.
    """
    tables, audit = Manifests(manifests), read_json(manifests / "audit.json")
    lengths = pd.DataFrame({"dataset": tables.captions["dataset"].to_numpy(), "tokens": token_lengths})
    pairs = _pairs(tables, pd.read_parquet(manifests / "links.parquet"))
    with output_folder(figures) as folder:
        draw_sizes(tables.images, lengths, context_length, folder / "sizes.png")
        if pairs:
            draw_pairs(pairs, folder / "pairs.png")
    for name, account in audit["datasets"].items():
        images, tokens = tables.images[tables.images["dataset"] == name], lengths.loc[lengths["dataset"] == name, "tokens"]
        account["height"], account["width"] = (_quantiles(images[side]) for side in ("height", "width"))
        if len(tokens):
            account["caption_tokens"] = {**_quantiles(tokens), "cut": int((tokens > context_length).sum())}
    write_json(content, audit)
    write_text(page, _page(audit, context_length, bool(pairs), content.name, figures.name))


def _quantiles(values: pd.Series) -> dict[str, float]:
    return {"min": int(values.min()), "median": float(values.median()), "max": int(values.max())}


def _pairs(tables: Manifests, links: pd.DataFrame) -> list[tuple[str, Path, Path]]:
    """Choose some linked pairs of two data sets: of each kind, evenly spaced from the least alike to the most."""
    dataset = tables.images["dataset"]
    links = links[dataset[links["left"]].to_numpy() != dataset[links["right"]].to_numpy()]
    chosen = []
    for kind in ("exact", "perceptual"):
        rows = links[links["kind"] == kind].sort_values(["correlation", "left", "right"])
        rows = rows.iloc[np.linspace(0, len(rows) - 1, min(_NUM_PAIRS, len(rows))).round().astype(int)]
        for row in rows.itertuples():
            images = tables.images.loc[[row.left, row.right]]
            people = [f"{image.dataset} {image.split} {image.person or image.pid}" for image in images.itertuples()]
            left, right = tables.files(images)
            chosen.append(("\n".join([f"{kind}, {row.correlation:.3f}", *people]), left, right))
    return chosen


def counts_table(audit: dict) -> Table:
    """Tabulate what was read: people, pictures and captions for each set, split and role."""
    rows = []
    for name, account in sorted(audit["datasets"].items()):
        for split, roles in sorted(account["counts"].items()):
            for role, count in sorted(roles.items()):
                more = [f"{count[key]:,} {key}" for key in ("junk", "distractors") if count.get(key)]
                pictures = f"{count['pictures']:,}" + (f" ({', '.join(more)})" if more else "")
                rows.append([name, split, role, f"{count['people']:,}", pictures, f"{count['captions']:,}"])
    return Table(["data set", "split", "used as", "people", "pictures", "captions"], rows, num_left=3)


def links_sentence(audit: dict) -> str:
    """Say in a few sentences what was linked, merged and dropped."""
    people = audit["people"]
    exact, perceptual = (sum(kinds[kind] for kinds in audit["links"].values()) for kind in ("exact", "perceptual"))
    merged = ""
    if count := people["of_one_set_merged"]:
        merged = f" {count:,} of them were merged with somebody of their own set, which says that they are two."
    return (
        f"Two sets hold the same picture {exact + perceptual:,} times: {exact:,} pairs agree pixel for pixel (exact), "
        f"{perceptual:,} after re-encoding, resizing or a crop (perceptual; such a link can be wrong). Linked people are one "
        f"person: {people['in_all_sets']:,} people of all sets became {people['unified']:,}.{merged} Left out (`dropped`): "
        f"{people['dropped_from_training']:,} people of training and {people['dropped_from_pretraining']:,} of pretraining who "
        f"occur in a test split, and {people['dropped_from_validation']:,} of validation who occur in a test split or in "
        "training."
    )


def _page(audit: dict, context_length: int, has_pairs: bool, content: str, figures: str) -> str:
    sections = [
        f"# What was read\n\nWritten by the `audit` stage; the same as JSON: [{content}]({content}).",
        "## Counts\n\n`dropped` people are in a test split too, or are of validation and in training too; `unused` are test "
        f"people of a set that is not evaluated.\n\n{markdown(counts_table(audit))}",
        f"## Links\n\n{links_sentence(audit)}\n\n{_links_table(audit)}",
    ]
    if has_pairs:
        sections.append(
            "Linked pairs, from the least alike to the most; the number is the correlation of the aligned thumbnails.\n\n"
            f"![Pairs of pictures of two data sets that were taken for the same shot]({figures}/pairs.png)"
        )
    sections += [
        "## Data sets",
        *(_dataset(name, account) for name, account in sorted(audit["datasets"].items())),
        f"## Sizes\n\n![Histograms of picture height, picture width and caption length]({figures}/sizes.png)\n\n"
        f"The last 0.1 % is counted at the edge. Captions are cut at {context_length} tokens.",
    ]
    skipped = audit["skipped_pictures"]
    listed = [f"- {_code(each['fault'])} ({each['dataset']}, {each['split']}, {each['role']})" for each in skipped[:_NUM_SKIPPED]]
    more = [f"- and {len(skipped) - _NUM_SKIPPED:,} more, in the JSON"] if len(skipped) > _NUM_SKIPPED else []
    sections.append("## Skipped pictures\n\n" + ("\n".join(listed + more) if skipped else "None."))
    return "\n\n".join(sections) + "\n"


def _links_table(audit: dict) -> str:
    kinds = ["exact", "perceptual"]
    rows = [[pair, *(f"{counts[kind]:,}" for kind in kinds)] for pair, counts in sorted(audit["links"].items())]
    return markdown(Table(["data sets", *kinds], rows)) if rows else "No picture stands in two sets."


def _dataset(name: str, account: dict) -> str:
    version = f" {account['version']}" if account["version"] else ""
    use, tasks = ", ".join(account["use"]), ", ".join(account["tasks"])
    lines = [
        f"### {name}",
        "",
        f"- format `{account['format']}`{version}, in `{account['folder']}`; used for {use}; serves {tasks}",
    ]
    lines += [f"- **counts differ from the published ones**: {text}" for text in account["mismatches"]]
    lines += [f"- {_code(text)}" for text in account["notes"]]
    if cameras := account["cameras_a_person"]:
        seen = sorted(cameras["people"].items(), key=lambda item: int(item[0]))
        people = ", ".join(f"{count:,} by {number}" for number, count in seen)
        lines.append(f"- {cameras['num_cameras']} cameras; people seen by so many of them: {people}")
    duplicates = account["duplicates"]
    lines.append(
        f"- {duplicates['pictures']:,} pictures stand in this set once more, pixel for pixel; "
        f"{duplicates['under_another_person']:,} of them under another person, {duplicates['in_another_split']:,} in another "
        "split"
    )
    lines += [f"  - {_code(left)} = {_code(right)}" for left, right in duplicates["examples"][:_NUM_FINDINGS]]
    if captions := account["captions"]:
        shared, tokens = captions["shared_by_several_people"], account.get("caption_tokens")
        lines.append(f"- {captions['pictures_without']:,} pictures without a caption")
        lines.append(f"- {shared['sentences']:,} sentences stand under several people ({shared['captions']:,} captions)")
        lines += [f"  - {_code(entry['caption'])}: {entry['people']} people" for entry in shared["examples"][:_NUM_FINDINGS]]
        if tokens:
            lines.append(
                f"- captions of {tokens['min']} to {tokens['max']} tokens (median {tokens['median']:g}); {tokens['cut']:,} are "
                "cut"
            )
    height, width = account["height"], account["width"]
    lines.append(
        f"- pictures {height['min']} to {height['max']} pixels high (median {height['median']:g}), "
        f"{width['min']} to {width['max']} wide (median {width['median']:g})"
    )
    return "\n".join(lines)


def _code(text: str) -> str:
    """Quote a user's text as Markdown that is shown as it is."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"

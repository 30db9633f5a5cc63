"""What a score says: the probability that both show one person, and the threshold at a rate of false alarms.

A calibration lies with the model, in its folder `calibration/`: calibration.json, which the calibrate stage fits on validation
people (hpl.analysis.calibrate), and cohort.npy. Reading and applying it takes numpy alone.

The score of pictures is their cosine. That of a sentence is its cosine with a picture, less the mean and over the deviation of
its cosines with a cohort, the validation pictures: some sentences are near all pictures, others near none (z-norm of speaker
verification: Auckenthaler et al., Digital Signal Processing 2000). Mean and deviation follow from the cohort's mean vector m and
covariance C as q.m and sqrt(q.C.q), so cohort.npy holds these and no vector of any person, and a score depends neither on the
size of a gallery nor on who else is in it.

From score to probability goes a log likelihood ratio (Brummer and du Preez, Computer Speech and Language 2006), between whose
knots lines are drawn, and the prior: the share of pictures of the person sought among those that are searched.
log odds = log likelihood ratio + log odds of the prior.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpl.evaluation.composition import standardised
from hpl.files import HplError, parsing, read_json, write_json
from hpl.tasks import Task

CALIBRATION_FOLDER = "calibration"  # in the model's folder
_CALIBRATION_FILE, _COHORT_FILE, _FORMAT = "calibration.json", "cohort.npy", 1
_AGAIN = "run the calibrate stage again"
LIKELY, POSSIBLE, UNLIKELY = "likely", "possible", "unlikely"


def cohort_moments(features_ND: np.ndarray) -> np.ndarray:
    """Summarise N vectors of unit length as (D+1) x D float32: their mean, and below it their covariance."""
    exact_ND = np.asarray(features_ND, np.float64)
    mean_D = exact_ND.mean(axis=0)
    centred_ND = exact_ND - mean_D
    return np.vstack([mean_D, centred_ND.T @ centred_ND / len(exact_ND)]).astype(np.float32)


def chance_of_a_stranger(false_alarm_rate: float, num_pictures: int) -> float:
    """Compute the probability that some of `num_pictures` of other people score above the threshold: 1 - (1 - f)^N."""
    return float(-np.expm1(num_pictures * np.log1p(-false_alarm_rate)))


def stranger_words(false_alarm_rate: float, num_pictures: int) -> str:
    """Say what a false-alarm rate means in a gallery of this size."""
    chance = 100 * chance_of_a_stranger(false_alarm_rate, num_pictures)
    shown = "more than 99.9" if chance > 99.9 else f"{chance:.3g}"
    return (
        f"1 false alarm in {1 / false_alarm_rate:,.0f} comparisons: among {num_pictures:,} pictures of other people, with a "
        f"probability of {shown} % at least one scores above the threshold, {false_alarm_rate * num_pictures:,.3g} on average"
    )


@dataclass(frozen=True)
class Calibration:
    """A model's calibration, as `load_calibration` reads it.

    Attributes:
        content: calibration.json: `tasks` by name, and `missing`, by task or `clusters` why there is none.
        cohort: as `cohort_moments` returns it; without rows if no sentence can be scored.
    """

    content: dict
    cohort: np.ndarray

    @property
    def prior(self) -> float:
        """Share of pictures of the person sought for which probabilities hold if nothing else is said, 0..1."""
        return self.content["prior"]

    @property
    def bands(self) -> dict[str, float]:
        """Least probability of `likely` and of `possible`; below both is `unlikely`."""
        return self.content["bands"]

    @property
    def cluster_threshold(self) -> float | None:
        """Least mean cosine (v_i2i) of two clusters of one person, chosen on validation people; None: `missing` says why."""
        return self.content.get("clusters", {}).get("threshold")

    def missing(self, task: Task) -> str:
        """Say why a task is not calibrated; "" if it is."""
        if task.name in self.content["tasks"]:
            return ""
        return self.content["missing"].get(task.name, "it was not among the tasks when calibrate ran")

    def scores(self, task: Task, cosines: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Turn cosines into the scores that everything here is about.

        Args:
            cosines: Q x N, of each query with each picture (or of each with pictures of its own).
            queries: Q x D, the vectors that asked, of any length; pictures' are not looked at.
        """
        if not task.by_caption:
            return np.asarray(cosines)
        unit_QD = np.asarray(queries, np.float64)
        unit_QD = unit_QD / np.maximum(np.linalg.norm(unit_QD, axis=1, keepdims=True), 1e-12)
        if unit_QD.shape[1] != self.cohort.shape[1]:
            raise HplError(
                f"queries have {unit_QD.shape[1]} features and the calibration's cohort {self.cohort.shape[1]}; {_AGAIN}"
            )
        mean_D, covariance_DD = self.cohort[0].astype(np.float64), self.cohort[1:].astype(np.float64)
        variance_Q = np.einsum("qd,de,qe->q", unit_QD, covariance_DD, unit_QD, optimize=True)
        deviation_Q = np.sqrt(np.maximum(variance_Q, 0))
        return standardised(np.asarray(cosines), (unit_QD @ mean_D)[:, None], deviation_Q[:, None])

    def probability(self, task: Task, scores: np.ndarray, prior: float | None = None) -> np.ndarray:
        """Return the probability of "same person" of each score (any shape).

        Args:
            prior: share of pictures of the person sought among those searched, above 0 and below 1; None: the stated one.

        Raises:
            HplError: the task is not calibrated, or the prior is no such share.
        """
        prior = self.prior if prior is None else prior
        if not 0 < prior < 1:
            raise HplError(f"prior = {prior}; expected a share above 0 and below 1, such as {self.prior}")
        found = self._task(task)
        ratios = np.interp(scores, found["scores"], found["log_likelihood_ratios"])
        return 1 / (1 + np.exp(-(ratios + np.log(prior / (1 - prior)))))

    def band(self, probability: float) -> str:
        """Name a probability: likely, possible or unlikely."""
        if probability >= self.bands[LIKELY]:
            return LIKELY
        return POSSIBLE if probability >= self.bands[POSSIBLE] else UNLIKELY

    def thresholds(self, task: Task) -> dict[float, float]:
        """List the rates of false alarms that validation supports, and the least score that counts as found at each."""
        given = self._task(task)["thresholds"]
        return {each["false_alarm_rate"]: each["threshold"] for each in given if each["threshold"] is not None}

    def unsupported(self, task: Task) -> dict[float, str]:
        """List the other rates, and why there is no threshold."""
        given = self._task(task)["thresholds"]
        return {each["false_alarm_rate"]: each["reason"] for each in given if each["threshold"] is None}

    def threshold(self, task: Task, false_alarm_rate: float) -> float:
        """Find the least score that counts as found at a rate of false alarms per comparison.

        Raises:
            HplError: the rate was not asked for, or too few comparisons support it.
        """
        for each in self._task(task)["thresholds"]:
            if np.isclose(each["false_alarm_rate"], false_alarm_rate, rtol=1e-6, atol=0):
                if each["threshold"] is None:
                    raise HplError(f"no threshold for {task.name} at {false_alarm_rate:g} false alarms: {each['reason']}")
                return each["threshold"]
        known = ", ".join(f"{each['false_alarm_rate']:g}" for each in self._task(task)["thresholds"])
        raise HplError(f"no threshold for {task.name} at {false_alarm_rate:g} false alarms; expected one of {known}")

    def _task(self, task: Task) -> dict:
        if reason := self.missing(task):
            raise HplError(f"the model is not calibrated for {task.name}: {reason}")
        return self.content["tasks"][task.name]


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a calibration into the folder that becomes a model's CALIBRATION_FOLDER."""
    write_json(Path(folder) / _CALIBRATION_FILE, {"format": _FORMAT, **calibration.content})
    np.save(Path(folder) / _COHORT_FILE, calibration.cohort, allow_pickle=False)


def load_calibration(model: Path, model_sha256: str = "") -> Calibration | None:
    """Read the calibration of a model's folder; None if it has none, as models have that were trained before there was any.

    Args:
        model_sha256: of the model's tensors, if known: a calibration of other tensors is refused.

    Raises:
        HplError: it is damaged, of another version or of another model.
    """
    folder = Path(model) / CALIBRATION_FOLDER
    if not (file := folder / _CALIBRATION_FILE).is_file():
        return None
    content = read_json(file)
    with parsing(file, _AGAIN):
        _check(file, content, model_sha256)
    cohort = folder / _COHORT_FILE
    with parsing(cohort, _AGAIN):
        moments = np.load(cohort, allow_pickle=False)
        if moments.ndim != 2 or (len(moments) and len(moments) != moments.shape[1] + 1) or not np.isfinite(moments).all():
            raise HplError(f"{cohort}: shape {moments.shape}; expected a mean and a covariance of finite numbers; {_AGAIN}")
    return Calibration(content, moments)


def _check(file: Path, content: dict, model_sha256: str) -> None:
    """Raise whatever, or HplError, at content that is not what `save_calibration` writes, or is of another model."""
    if content["format"] != _FORMAT:
        raise HplError(f"{file}: format {content['format']!r}; expected {_FORMAT}; {_AGAIN}")
    if model_sha256 and content["model"] != model_sha256:
        raise HplError(f"{file}: of another model (its tensors have SHA-256 {content['model'][:12]}...); {_AGAIN}")
    limits = [content["bands"][POSSIBLE], content["bands"][LIKELY]]
    if not 0 < content["prior"] < 1 or limits != sorted(limits) or not isinstance(content["missing"], dict):
        raise HplError(f"{file}: a prior or bands that cannot be; {_AGAIN}")
    for name, task in content["tasks"].items():
        for knots in (task["scores"], task["log_likelihood_ratios"]):
            if len(knots) != len(task["scores"]) or not np.isfinite(knots).all() or (np.diff(knots) < 0).any():
                raise HplError(f"{file}: {name} has no rising line of scores and likelihood ratios; {_AGAIN}")
        for each in task["thresholds"]:
            float(each["false_alarm_rate"]), each["reason"] if each["threshold"] is None else float(each["threshold"])

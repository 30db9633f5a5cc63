"""Fit a model's calibration on validation people: scores to likelihood ratios, thresholds, and the threshold of clusters.

Scores are counted in fine bins, so memory does not grow with the number of pairs. Two methods are fitted to the counts, logistic
regression on the score with Platt's smoothing (Platt, 1999) and isotonic regression (PAV); cross-validation over people chooses
by log loss. Same and other people are weighted to the stated prior, both in the fit and in the loss. No likelihood ratio goes
beyond what so many pairs can show: 1 to the number of pairs of one person, or the number of pairs of others to 1.

A rate of false alarms needs MIN_ALARMS comparisons above its threshold: then the rate is known to 30 % with a confidence of 90 %
(Doddington et al., The NIST speaker recognition evaluation, Speech Communication 2000: the rule of 30).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

from hpl.config import Calibrate
from hpl.evaluation.calibration import LIKELY, POSSIBLE, Calibration, cohort_moments
from hpl.evaluation.composition import standardised
from hpl.evaluation.protocols import Rule
from hpl.evaluation.similarity import cosine_blocks, unit
from hpl.retrieval.figures import Encoded
from hpl.search.cluster import cut, link
from hpl.tasks import I2I, TASKS, Task

NUM_FOLDS = 5  # of people, in cross-validation
MIN_ALARMS = 30
FOLD_SEED = 0
_NUM_BINS = 40_000
_RANGES = {False: (-1.0, 1.0), True: (-20.0, 20.0)}  # of scores: cosines; standardised ones
_DIGITS = 6  # of what is written
NUM_CLUSTER_THRESHOLDS = 200  # that are tried

_Line = tuple[np.ndarray, np.ndarray]  # scores, log likelihood ratios; both rising
_Fit = Callable[[np.ndarray, np.ndarray, float], _Line]


@dataclass(frozen=True)
class PairCounts:
    """How many pairs have which score.

    Attributes:
        edges: of the bins, _NUM_BINS + 1.
        counts: fold of the query's person x fold of the picture's x (others, same person) x bin.
        num_people, num_queries: that have a match.
    """

    edges: np.ndarray
    counts: np.ndarray
    num_people: int
    num_queries: int

    @property
    def middles(self) -> np.ndarray:
        """The score that stands for each bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def total(self) -> np.ndarray:
        """Others and same person, 2 x bin, of all people."""
        return self.counts.sum(axis=(0, 1))

    def fold(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Split people: pairs of the people outside a fold, and pairs of those in it; both 2 x bin."""
        others = np.arange(len(self.counts)) != number
        return self.counts[others][:, others].sum(axis=(0, 1)), self.counts[number, number]


def fit_calibration(encoded: list[Encoded], options: Calibrate, model: str, reasons: dict[str, str]) -> Calibration:
    """Fit what validation people allow.

    Args:
        encoded: validation sets.
        model: SHA-256 of the model's tensors.
        reasons: by task why no validation set serves it.
    """
    content: dict = {"model": model, "prior": options.prior, "bands": {LIKELY: options.likely, POSSIBLE: options.possible}}
    content |= {"tasks": {}, "missing": {}}
    cohort = np.empty((0, 0), np.float32)
    for task in TASKS.values():
        sets = [each for each in encoded if task in each.dataset.tasks]
        pairs = count_pairs(sets, task) if sets else None
        if pairs is None or not pairs.total.any(axis=1).all():
            few = "no validation person has both a match and somebody else to be told from; expected two people or more"
            content["missing"][task.name] = few if sets else reasons[task.name]
            continue
        content["tasks"][task.name] = _fitted(pairs, task, options)
        if task.by_caption:
            cohort = cohort_moments(_cohort(sets)[0])
            content["tasks"][task.name]["num_cohort"] = sum(len(each.t2i) for each in sets)
        else:
            content["clusters"] = _cluster_threshold(sets, pairs)
    if "clusters" not in content:
        content["missing"]["clusters"] = content["missing"][I2I.name]
    return Calibration(content, cohort)


def count_pairs(sets: list[Encoded], task: Task) -> PairCounts:
    """Count the scores of all queries of validation sets with their galleries, as the task's rule has them."""
    edges = np.linspace(*_RANGES[task.by_caption], _NUM_BINS + 1)
    rules = [each.similarities(task)[1] for each in sets]
    num_people = [len(np.unique(rule.query_pids)) for rule in rules]
    num_folds = max(min(NUM_FOLDS, min(num_people) // 2), 1)
    counts, people, queries = np.zeros((num_folds, num_folds, 2, _NUM_BINS), np.int64), 0, 0
    for each, rule in zip(sets, rules):
        mean_Q, deviation_Q = _moments_without_own(each.text, rule, sets) if task.by_caption else (None, None)
        query_folds, gallery_folds = _folds(rule, num_folds)
        matched = set()
        for start, similarity in each.similarities(task)[0]:
            for query, row in enumerate(similarity, start):
                if mean_Q is not None and deviation_Q is not None:
                    row = standardised(row, mean_Q[query], deviation_Q[query])
                matches, ignored = rule.positions(query)
                if not len(matches):
                    continue
                bins = np.clip(np.searchsorted(edges, row, "right") - 1, 0, _NUM_BINS - 1)
                same = np.zeros(len(row), np.int64)
                same[matches] = 1
                left = np.delete(np.arange(len(row)), ignored)
                np.add.at(counts[query_folds[query]], (gallery_folds[left], same[left], bins[left]), 1)
                matched.add(rule.query_pids[query])
                queries += 1
        people += len(matched)
    return PairCounts(edges, counts, people, queries)


def _folds(rule: Rule, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the folds of the people of queries and gallery, by FOLD_SEED."""
    asking = np.unique(rule.query_pids)  # these first, so that each fold has as many
    other = np.setdiff1d(rule.gallery_pids, asking)
    generator = np.random.default_rng(FOLD_SEED)
    people = np.concatenate([generator.permutation(asking), generator.permutation(other)])
    fold = dict(zip(people.tolist(), (np.arange(len(people)) % num_folds).tolist()))
    queries, gallery = ([fold[pid] for pid in pids.tolist()] for pids in (rule.query_pids, rule.gallery_pids))
    return np.array(queries), np.array(gallery)


def _cohort(sets: list[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """Collect the unit v_t2i of all pictures of sets, and who is on them."""
    pids = np.concatenate([each.dataset.images["pid"].to_numpy() for each in sets])
    return unit(np.concatenate([each.t2i for each in sets])), pids


def _moments_without_own(text: np.ndarray, rule: Rule, sets: list[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and deviation of each sentence's cosines with the cohort, without its own person: nobody new is in it."""
    cohort, pids = _cohort(sets)
    mean, deviation = np.empty(len(text)), np.empty(len(text))
    for start, cosines in cosine_blocks(unit(text), cohort):
        for query, row in enumerate(cosines, start):
            others = row[pids != rule.query_pids[query]].astype(np.float64)
            mean[query], deviation[query] = (others.mean(), others.std()) if len(others) else (0, 1)
    return mean, deviation


def _fitted(pairs: PairCounts, task: Task, options: Calibrate) -> dict:
    losses = {name: cross_validated(fit, pairs, options.prior) for name, fit in METHODS.items()}
    method = min(METHODS, key=lambda name: losses[name] or 0.0)  # without losses the first, which is the stiffer one
    scores, ratios = METHODS[method](pairs.total, pairs.middles, options.prior)
    others, same = pairs.total.sum(axis=1)
    prior_alone = -options.prior * np.log(options.prior) - (1 - options.prior) * np.log(1 - options.prior)
    return {
        "score": "cosine, standardised over the cohort" if task.by_caption else "cosine",
        "method": method,
        "scores": scores.round(_DIGITS).tolist(),
        "log_likelihood_ratios": ratios.round(_DIGITS).tolist(),
        "log_loss": {name: None if loss is None else round(loss, _DIGITS) for name, loss in losses.items()}
        | {"prior_alone": round(float(prior_alone), _DIGITS)},
        "thresholds": [threshold_at(pairs, rate) for rate in options.false_alarm_rates],
        "num_people": pairs.num_people,
        "num_queries": pairs.num_queries,
        "num_same": int(same),
        "num_others": int(others),
    }


def threshold_at(pairs: PairCounts, rate: float) -> dict:
    """Find the least edge of a bin at or above which are at most that share of the pairs of other people; none if too few are."""
    others = pairs.total[0]
    total = int(others.sum())
    if rate * total < MIN_ALARMS:
        reason = (
            f"{rate * total:.3g} false alarms are expected among {total:,} comparisons of validation people; {MIN_ALARMS} are "
            "needed (rule of 30)"
        )
        return {"false_alarm_rate": rate, "threshold": None, "reason": reason, "num_comparisons": total}
    above = np.append(np.cumsum(others[::-1])[::-1], 0)  # at or above each edge
    edge = pairs.edges[np.flatnonzero(above <= rate * total)[0]]
    return {"false_alarm_rate": rate, "threshold": round(float(edge), _DIGITS), "num_comparisons": total}


def cross_validated(fit: _Fit, pairs: PairCounts, prior: float) -> float | None:
    """Compute the log loss (nats a comparison, at the prior) on people left out, mean over folds; None with too few people."""
    losses = []
    for number in range(len(pairs.counts)):
        kept, left = pairs.fold(number)
        if not (kept.any(axis=1).all() and left.any(axis=1).all()):
            return None
        odds = np.interp(pairs.middles, *fit(kept, pairs.middles, prior)) + logit(prior)
        others, same = left / left.sum(axis=1, keepdims=True)
        losses.append(prior * same @ np.logaddexp(0, -odds) + (1 - prior) * others @ np.logaddexp(0, odds))
    return float(np.mean(losses))


def _weighted(counts: np.ndarray, middles: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores in use, and the weights of others and same person, 2 x n, that sum to 1 - prior and prior."""
    used = np.flatnonzero(counts.any(axis=0))
    weights = counts[:, used] / counts.sum(axis=1, keepdims=True) * [[1 - prior], [prior]]
    return middles[used], weights


def fit_logistic(counts: np.ndarray, middles: np.ndarray, prior: float) -> _Line:
    """Fit log odds that are linear in the score, with Platt's smoothed targets; a line that would fall is level."""
    scores, weights = _weighted(counts, middles, prior)
    num_others, num_same = counts.sum(axis=1)
    doubt = weights * [[1 / (num_others + 2)], [1 / (num_same + 2)]]  # the share of each target that is on the other side
    target = np.stack([weights[0] - doubt[0] + doubt[1], weights[1] - doubt[1] + doubt[0]])
    centre, spread = np.average(scores, weights=weights.sum(axis=0)), max(np.ptp(scores), 1e-9)
    inputs = np.tile((scores - centre) / spread, 2)[:, None]
    labels = np.repeat([0, 1], len(scores))
    model = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-10).fit(inputs, labels, target.ravel() * num_others)
    slope = float(model.coef_[0, 0])
    if slope <= 0:
        return scores[[0, -1]], np.zeros(2)
    low, high = _limits(counts)
    at = (np.array([low, high]) + logit(prior) - float(model.intercept_[0])) / slope * spread + centre
    ends = np.clip(at, scores[0], scores[-1])
    if ends[1] - ends[0] < 1e-5:  # all below or all above: a step where they part
        return ends + [-1e-5, 1e-5], np.array([low, high])
    ratios = (ends - centre) / spread * slope + float(model.intercept_[0]) - logit(prior)
    return ends, np.clip(ratios, low, high)


def fit_isotonic(counts: np.ndarray, middles: np.ndarray, prior: float) -> _Line:
    """Fit log odds that rise with the score in whatever way."""
    scores, weights = _weighted(counts, middles, prior)
    both = weights.sum(axis=0)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, weights[1] / both, both)
    ratios = logit(np.clip(model.y_thresholds_, 1e-12, 1 - 1e-12)) - logit(prior)
    return np.asarray(model.X_thresholds_), np.clip(ratios, *_limits(counts))


METHODS: dict[str, _Fit] = {"logistic": fit_logistic, "isotonic": fit_isotonic}


def _limits(counts: np.ndarray) -> tuple[float, float]:
    num_others, num_same = counts.sum(axis=1)
    return -float(np.log(num_same + 1)), float(np.log(num_others + 1))


def _cluster_threshold(sets: list[Encoded], pairs: PairCounts) -> dict:
    """Choose the threshold of the highest adjusted Rand index on the pictures of validation people, the highest one of equals."""
    others, same = pairs.total
    lowest = pairs.middles[np.searchsorted(np.cumsum(others), others.sum() / 2)]
    tried = np.linspace(lowest, pairs.middles[np.flatnonzero(same)[-1]], NUM_CLUSTER_THRESHOLDS)
    agreement, num_pictures, num_people = np.zeros(len(tried)), 0, 0
    for vectors, pids in map(people_of, sets):
        links, similarities = link(vectors, float(lowest))
        agreement += [adjusted_rand_score(pids, cut(len(pids), links, similarities, least)) for least in tried]
        num_pictures, num_people = num_pictures + len(pids), num_people + len(np.unique(pids))
    best = len(tried) - 1 - int(np.argmax(agreement[::-1]))
    return {
        "threshold": round(float(tried[best]), _DIGITS),
        "ari": round(float(agreement[best]) / len(sets), _DIGITS),
        "num_tried": len(tried),
        "num_pictures": num_pictures,
        "num_people": num_people,
    }


def people_of(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Take the unit v_i2i of a set's pictures of known people, each picture once, and their pids."""
    images = encoded.dataset.images
    chosen = ((images["pid"] > 0) & ~images["sha256"].duplicated()).to_numpy()
    return unit(encoded.i2i[chosen]), images["pid"].to_numpy()[chosen]

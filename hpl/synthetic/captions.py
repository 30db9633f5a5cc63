"""English for what a picture shows: a small grammar with synonyms, omissions and several orders.

`describe` speaks only of parts that its `visible` flags admit, and of nothing twice. Captions by `RICH_CHANCES` mention what is
carried; those by `PLAIN_CHANCES` (the pretraining set's) seldom mention anything but the person and the clothes.
"""

import re

import numpy as np

from hpl.synthetic.people import Identity, Instance

_NOUNS = {
    "man": ("man", "man", "guy", "male", "young man", "male pedestrian"),
    "woman": ("woman", "woman", "lady", "female", "young woman", "girl", "female pedestrian"),
}
_PRONOUNS = {"man": ("he", "his"), "woman": ("she", "her")}
_COLOUR_WORDS = {
    "grey": ("grey", "gray"),
    "dark blue": ("dark blue", "navy blue", "navy"),
    "light blue": ("light blue", "pale blue", "sky blue"),
    "red": ("red", "bright red"),
    "dark red": ("dark red", "maroon", "burgundy"),
    "dark green": ("dark green", "olive green", "deep green"),
    "purple": ("purple", "violet"),
    "beige": ("beige", "tan", "khaki", "cream colored"),
}
_HAIR_COLOUR_WORDS = {
    "black": ("black", "dark"),
    "blonde": ("blonde", "light colored"),
    "grey": ("grey", "gray"),
    "red": ("red", "ginger"),
}
_HAIR_WORDS = {
    "short": ("short {} hair", "short cut {} hair", "{} hair cut short"),
    "long": ("long {} hair", "shoulder length {} hair", "{} hair down to the shoulders"),
    "curly": ("curly {} hair", "thick curly {} hair"),
    "ponytail": ("{} hair in a ponytail", "{} hair tied back in a ponytail", "a {} ponytail"),
    "bun": ("{} hair in a bun", "{} hair tied up in a bun"),
}
_HAT_WORDS = {"cap": ("cap", "baseball cap", "hat"), "beanie": ("beanie", "knitted hat", "hat")}
_TOP_WORDS = {
    "t-shirt": ("t-shirt", "tee shirt", "short sleeved shirt", "short sleeved t-shirt"),
    "shirt": ("shirt", "long sleeved shirt", "button up shirt", "dress shirt"),
    "sweater": ("sweater", "pullover", "long sleeved top", "jumper"),
    "jacket": ("jacket", "zip up jacket"),
    "coat": ("coat", "overcoat", "knee length coat"),
    "vest": ("tank top", "sleeveless top", "sleeveless shirt"),
    "dress": ("dress", "knee length dress"),
}
_PATTERN_WORDS = {
    "plain": ("{first} {kind}", "plain {first} {kind}"),
    "stripes": (
        "{first} and {second} striped {kind}",
        "{first} {kind} with {second} stripes",
        "striped {first} and {second} {kind}",
    ),
    "checks": (
        "{first} and {second} checked {kind}",
        "{first} and {second} plaid {kind}",
        "{first} checkered {kind} with {second} lines",
    ),
    "dots": ("{first} {kind} with {second} dots", "{first} and {second} polka dot {kind}", "{first} {kind} with {second} spots"),
    "logo": (
        "{first} {kind} with a {second} logo",
        "{first} {kind} with a {second} print on the chest",
        "{first} {kind} with a {second} design on the front",
    ),
    "inner": ("{first} {kind} over a {second} shirt", "open {first} {kind} with a {second} shirt underneath"),
    "sleeves": ("{first} {kind} with {second} sleeves", "{first} {kind} that has {second} sleeves"),
}
_BOTTOM_WORDS = {
    "trousers": ("pants", "trousers", "dress pants", "slacks"),
    "jeans": ("jeans", "denim jeans", "denim pants"),
    "shorts": ("shorts", "knee length shorts", "short pants"),
    "skirt": ("skirt", "knee length skirt"),
    "leggings": ("leggings", "tights", "skinny pants"),
}
_BOTTOM_PATTERN_WORDS = {
    "checks": ("checked {}", "plaid {}"),
    "side stripe": ("{} with a white stripe down the side", "{} with white side stripes"),
}
_SHOES_WORDS = {
    "sneakers": ("sneakers", "trainers", "running shoes", "sport shoes", "shoes"),
    "shoes": ("shoes", "leather shoes", "footwear"),
    "boots": ("boots", "ankle boots"),
}
_BAG_WORDS = {
    "backpack": ("backpack", "rucksack", "back pack"),
    "handbag": ("handbag", "purse", "hand bag"),
    "shoulder bag": ("shoulder bag", "messenger bag", "cross body bag"),
    "plastic bag": ("plastic bag", "shopping bag", "carrier bag"),
    "suitcase": ("suitcase", "rolling suitcase", "trolley case"),
}
_BAG_DEEDS = {
    "backpack": ("carrying {}", "wearing {}", "with {} on {whose} back"),
    "handbag": ("carrying {}", "holding {}", "with {} in {whose} hand"),
    "shoulder bag": ("carrying {}", "with {} across {whose} body", "with {} slung over one shoulder"),
    "plastic bag": ("carrying {}", "holding {}", "with {} in {whose} hand"),
    "suitcase": ("pulling {}", "with {} at {whose} side", "dragging {}"),
}
_UMBRELLA_DEEDS = ("holding {} umbrella", "walking under {} umbrella", "carrying an open {bare} umbrella")
_PHONE_DEEDS = ("talking on a phone", "holding a mobile phone", "looking at a cell phone", "using a smartphone")
_BICYCLE_DEEDS = ("pushing {} bicycle", "walking with {} bike", "walking beside {} bicycle")
_VIEW_DEEDS = {
    "front": ("facing the camera", "walking towards the camera"),
    "back": ("walking away from the camera", "seen from behind"),
    "left": ("walking to the left", "seen from the side"),
    "right": ("walking to the right", "seen from the side"),
}
_BUILD_WORDS = {"slim": ("slim", "thin", "slender"), "heavy": ("heavy set", "stocky", "broad")}
_MIN_ATTRIBUTES = 3


RICH_CHANCES = {  # that a visible attribute is mentioned
    "top": 0.97, "bottom": 0.95, "shoes": 0.75, "hair": 0.7, "hat": 0.85, "bag": 0.85, "umbrella": 0.95,
    "phone": 0.85, "bicycle": 0.95, "view": 0.15, "build": 0.15,
}  # fmt: skip
PLAIN_CHANCES = {
    "top": 1.0, "bottom": 0.95, "shoes": 0.7, "hair": 0.65, "hat": 0.8, "bag": 0.15, "umbrella": 0.15,
    "phone": 0.1, "bicycle": 0.15, "view": 0.0, "build": 0.0,
}  # fmt: skip


def describe(
    identity: Identity, instance: Instance, visible: dict[str, bool], chances: dict[str, float], rng: np.random.Generator
) -> str:
    """Write a caption (ASCII, one to three sentences); the same arguments and generator state give the same words."""
    return _Caption(identity, instance, visible, chances, rng).compose()


def processed_tokens(caption: str) -> list[str]:
    """Split a caption into lower-case words without punctuation, as `processed_tokens` of CUHK-PEDES."""
    return re.findall(r"[a-z0-9-]+", caption.lower())


class _Caption:
    def __init__(
        self,
        identity: Identity,
        instance: Instance,
        visible: dict[str, bool],
        chances: dict[str, float],
        rng: np.random.Generator,
    ):
        self.who, self.how, self.seen, self.chances, self.rng = identity, instance, visible, chances, rng
        self.pronoun, self.whose = _PRONOUNS[identity.gender]
        self.said = self._choose_attributes()

    def compose(self) -> str:
        top, bottom, shoes, hat = self._top(), self._bottom(), self._shoes(), self._hat()
        hair, deeds = self._hair(), self._deeds()
        clothes = [phrase for phrase in (top, bottom) if phrase]
        extras = [phrase for phrase in (shoes, hat) if phrase]
        subject = _article(self._subject())
        orders = (self._in_one, self._clothes_first, self._with_first, self._wearing_first)
        order = orders[int(self.rng.integers(len(orders)))] if clothes else self._in_one
        return order(subject, clothes, extras, hair, deeds)

    def _in_one(self, subject: str, clothes: list[str], extras: list[str], hair: str, deeds: list[str]) -> str:
        """Write: A man with short hair wearing a shirt, jeans and shoes. He is carrying a bag."""
        start = subject + (f" with {hair}" if hair else "")
        worn = clothes + extras
        verb = self._pick(("wearing", "in", "dressed in", "who wears"))
        if worn:
            start += f" {verb} {_join(worn)}"
        return f"{_sentence(start)} {self._doing(deeds)}".strip()

    def _clothes_first(self, subject: str, clothes: list[str], extras: list[str], hair: str, deeds: list[str]) -> str:
        """Write: The man is wearing a shirt and jeans. He has short hair. He is carrying a bag and wears shoes."""
        the = self._pick((subject, "the " + subject.split(" ", 1)[1]))
        first = _sentence(f"{the} {self._pick(('is wearing', 'wears', 'is dressed in', 'has on'))} {_join(clothes)}")
        parts = [f"has {hair}"] if hair else []
        parts += [f"{self._pick(('is wearing', 'wears', 'also wears'))} {_join(extras)}"] if extras else []
        second = _sentence(f"{self.pronoun} {' and '.join(self._shuffled(parts))}") if parts else ""
        return " ".join(text for text in (first, second, self._doing(deeds)) if text)

    def _with_first(self, subject: str, clothes: list[str], extras: list[str], hair: str, deeds: list[str]) -> str:
        """Write: A man carrying a bag is wearing a shirt and jeans with shoes, and has short hair."""
        start = f"{subject} {deeds[0]}" if deeds else subject
        text = f"{start} is wearing {_join(clothes)}"
        text += f" with {_join(extras)}" if extras else ""
        text += f", and has {hair}" if hair else ""
        return f"{_sentence(text)} {self._doing(deeds[1:])}".strip()

    def _wearing_first(self, subject: str, clothes: list[str], extras: list[str], hair: str, deeds: list[str]) -> str:
        """Write: Wearing a shirt and jeans, the man has short hair and is carrying a bag. He is wearing shoes."""
        the = "the " + subject.split(" ", 1)[1]
        parts = [f"has {hair}"] if hair else []
        parts += [f"is {deeds[0]}" if not deeds[0].startswith("with ") else f"walks {deeds[0]}"] if deeds else []
        tail = " and ".join(parts) or self._pick(("is walking", "walks along"))
        first = _sentence(f"{self._pick(('wearing', 'dressed in'))} {_join(clothes + extras)}, {the} {tail}")
        return f"{first} {self._doing(deeds[1:])}".strip()

    def _doing(self, deeds: list[str]) -> str:
        """Write one sentence for whatever is carried or done, or nothing."""
        active = [deed for deed in deeds if not deed.startswith("with ")]
        passive = [deed for deed in deeds if deed.startswith("with ")]
        words = [f"is {' and '.join(active)}" if active else "walks", *passive]
        return _sentence(f"{self.pronoun} {' '.join(words)}") if deeds else ""

    def _subject(self) -> str:
        noun = self._pick(_NOUNS[self.who.gender])
        words = _BUILD_WORDS.get(self.who.build)
        return f"{self._pick(words)} {noun}" if words and " " not in noun and "build" in self.said else noun

    def _top(self) -> str:
        if "top" not in self.said:
            return ""
        pattern = self.who.top_pattern
        if pattern in ("logo", "inner", "sleeves") and not self.seen[pattern]:
            pattern = "plain"
        if pattern != "plain" and self.rng.random() < 0.12:
            pattern = "plain"
        words = _PATTERN_WORDS[pattern]
        if pattern == "plain" and self.rng.random() < 0.9:
            words = words[:1]
        colours = {"first": self._colour(self.who.top_colour), "second": self._colour(self.who.second_colour)}
        return _article(self._pick(words).format(kind=self._pick(_TOP_WORDS[self.who.top]), **colours))

    def _bottom(self) -> str:
        if "bottom" not in self.said:
            return ""
        kind = self._pick(_BOTTOM_WORDS[self.who.bottom])
        phrase = f"{self._colour(self.who.bottom_colour)} {kind}"
        words = _BOTTOM_PATTERN_WORDS.get(self.who.bottom_pattern)
        if words and self.rng.random() < 0.7:
            phrase = self._pick(words).format(phrase)
        if self.who.bottom == "skirt":
            return _article(phrase)
        return f"a pair of {phrase}" if self.rng.random() < 0.2 else phrase

    def _shoes(self) -> str:
        if "shoes" not in self.said:
            return ""
        phrase = f"{self._colour(self.who.shoes_colour)} {self._pick(_SHOES_WORDS[self.who.shoes])}"
        return f"a pair of {phrase}" if self.rng.random() < 0.2 else phrase

    def _hat(self) -> str:
        if "hat" not in self.said:
            return ""
        return _article(f"{self._colour(self.who.hat_colour)} {self._pick(_HAT_WORDS[self.who.hat])}")

    def _hair(self) -> str:
        style = self.who.hair
        if "hair" not in self.said:
            return ""
        colour = self._pick(_HAIR_COLOUR_WORDS.get(self.who.hair_colour, (self.who.hair_colour,)))
        if style in ("ponytail", "bun") and not self.seen["hair_shape"]:
            return f"{colour} hair"
        if self.seen["hat"] and style == "short":
            return f"{colour} hair"
        return self._pick(_HAIR_WORDS[style]).format(colour)

    def _deeds(self) -> list[str]:
        """List what the person carries and does, participles, in random order."""
        deeds, bag = [], self.how.bag
        if "bag" in self.said:
            thing = _article(f"{self._colour(self.how.bag_colour)} {self._pick(_BAG_WORDS[bag])}")
            deeds.append(self._pick(_BAG_DEEDS[bag]).format(thing, whose=self.whose))
        if "umbrella" in self.said:
            colour = self._colour(self.how.umbrella_colour)
            deeds.append(self._pick(_UMBRELLA_DEEDS).format(_article(colour), bare=colour))
        if "phone" in self.said:
            deeds.append(self._pick(_PHONE_DEEDS))
        if "bicycle" in self.said:
            deeds.append(self._pick(_BICYCLE_DEEDS).format(_article(self._colour(self.how.bicycle_colour))))
        if "view" in self.said:
            deeds.append(self._pick(_VIEW_DEEDS[self.how.viewpoint]))
        return self._shuffled(deeds)

    def _choose_attributes(self) -> set[str]:
        """Choose what to mention of all that can be seen: by chance, but `_MIN_ATTRIBUTES` if there are as many."""
        ready = {attribute: self.seen.get(attribute, True) for attribute in self.chances}
        ready["hair"] &= self.who.hair != "bald"
        ready["build"] = self.who.build in _BUILD_WORDS
        said = {name for name, chance in self.chances.items() if self.rng.random() < chance and ready[name]}
        spare = [name for name in self.chances if ready[name] and name not in said]
        return said | set(spare[: max(0, _MIN_ATTRIBUTES - len(said))])

    def _colour(self, name: str) -> str:
        return self._pick(_COLOUR_WORDS.get(name, (name,)))

    def _pick(self, words: tuple[str, ...]) -> str:
        """Draw any of the words, the first one most often."""
        if self.rng.random() < 0.3:
            return words[0]
        return words[int(self.rng.integers(len(words)))]

    def _shuffled(self, items: list[str]) -> list[str]:
        return [items[index] for index in self.rng.permutation(len(items))]


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _join(phrases: list[str]) -> str:
    """Join phrases: a, b and c."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

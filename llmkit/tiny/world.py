"""A fictional place whose people and their facts are known exactly.

Every person has a name, a birthplace and a profession, all drawn from closed sets, so that an answer can be checked
without a judge. People fall into groups by how often documents mention them:

- `known`   documented many times in the base corpus
- `rare`    mentioned in exactly 1, 4 or 16 documents of the base corpus
- `tail`    mentioned in one document of the base corpus: the many names that every corpus holds but once
- `new`     documented only in the chronicle, the corpus for continued pretraining
- `unseen`  mentioned nowhere

Each group is divided into `train` and `heldout` people; conversations only ever ask about `known`/`train`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Group = Literal["known", "rare", "tail", "new", "unseen"]
Split = Literal["train", "heldout"]
Fact = Literal["birthplace", "profession"]


def words(text: str) -> tuple[str, ...]:
    """The words of a text: short for a tuple of literals."""
    return tuple(text.split())


NUM_KNOWN = 2500
RARE_COUNTS = (1, 4, 16)

TOWNS: tuple[str, ...] = words(
    "Arlen Bruma Corvale Dunmere Elsby Farholt Gressing Hollin Istra Junost Kelby Lorne Marrow Nethis Oakmar Quillan "
    "Ravensk Sorrel Tarnow Ulmet Vesper Wickham Yarrow Zennor"
)
PROFESSIONS: tuple[str, ...] = words(
    "baker tailor miller potter weaver carpenter teacher nurse doctor lawyer sailor farmer gardener painter printer "
    "plumber mason librarian watchmaker glassblower beekeeper shepherd cook judge"
)
FIRST_NAMES: tuple[str, ...] = words(
    "Adela Agnes Albin Aldo Alfred Alma Alois Amalia Anders Anselm Anton Ariane Arno Arvid Astrid August Aurel Aurora "
    "Balint Barbara Basil Bastian Beata Bela Benno Berta Bianca Birgit Bodo Boris Bruno Calla Carlo Cecil Celia Clara "
    "Clemens Conrad Cora Corinna Cyril Dagny Dalia Damian Dario Delia Detlef Dimitri Dominik Dora Edda Edgar Edith "
    "Egbert Egon Elena Elias Elmar Elsa Emil Enid Erik Ernst Esme Estelle Ettore Eugen Ewald Fabio Felix Ferdinand "
    "Fergus Fiona Flora Florian Franka Freya Frieda Gabor Gaston Georg Gerda Gideon Gisela Greta Gudrun Gunnar Gustav "
    "Hanna Harald Hedda Helga Helmut Henrik Herta Hilda Holger Horst Hugo Ida Ignatz Ilona Ilse Imre Ines Ingrid "
    "Irene Irma Isak Isolde Ivana Ivo Jakob Jana Jarek Jasper Joachim Jolanda Jonas Josef Judit Julius Kamil Karin "
    "Kaspar Katya Kurt Lars Laszlo Lena Leonie Leopold Levin Liane Lidia Linus Livia Lotte Lucian Ludwig Lukas Magda "
    "Malin Manfred Marek Margit Marta Mathis Matilda Melina Milan Minna Mira Moritz Nadia Nestor Nils Nina Nora "
    "Norbert Oda Olaf Olga Oskar Otto Pavel Petra Philipp Quentin Ragna Rainer Rita Roland Romy Rosa Rufus Sabina "
    "Selma Sigrid Silas Simon Sonja Stefan Sven Sybil Tamara Thea Tilda Tobias Ulla Ulrich Ursula Valentin Vera "
    "Viktor Vincent Walter Wanda Wilma Xenia Yvo Zelda Zeno"
)
LAST_NAME_STEMS: tuple[str, ...] = words(
    "Adler Alder Ambro Amsel Arn Asch Bach Bark Baum Bell Berk Birk Blum Bock Born Brand Bren Buch Busch Cald Clem "
    "Corn Dahl Dall Dief Dorn Drag Drex Eber Eck Elm Ember Engel Esch Ester Falk Fenn Fink Flam Forst Frank Frei "
    "Frost Fuchs Gans Garn Geis Gerst Glas Gold Grab Grim Gut Haas Hain Hald Harr Hart Heid Hell Herz Hirt Holm Horn "
    "Hut Ilver Imm Jahn Jask Jurg Kalt Kamm Karst Kauf Kell Kern Kirch Klam Klee Koch Kohl Kranz Kron Kuhn Lamm Lang "
    "Laub Lehr Licht Lind Loh Luther Mald Marx Mohn Moor Mord Munt Nagel Nest Nord Nuss Oller Ost Pech Pell Pfahl "
    "Platz Prend Quar Quint Rab Rask Rein Ried Ritt Rose Roth Sand Sax Schal Schil Schon Sieg Stal Stein Sten Stock "
    "Strom Tann Teich Thal Thorn Tolv Trau Ulv Urb Varn Vier Vogel Volk Wart Weid Wend Westr Wint Wolk Yark Yest Zand "
    "Zell Zorn"
)
LAST_NAME_ENDINGS: tuple[str, ...] = words(
    "aas berg dal ek en er feld gren haus ius kamp low man off ova sen sted ulin wick yn"
)

_ONSETS = words("b br d dr f g gl h j k kl l m n p r s st t tr v w z")
_CODAS = ("", "", "l", "n", "r", "s", "k", "m", "t")

_NUM_NAMES = 104_000
# Fixed ranges of one shuffled list of names, so that changing the size of one group never moves another.
_START: dict[Group, int] = {"new": 0, "rare": 100, "known": 1000, "tail": 4000, "unseen": 84000}
_DEFAULT_SIZE: dict[Group, int] = {"new": 40, "rare": 180, "known": NUM_KNOWN, "tail": 80000, "unseen": 4000}
_MAX_SIZE: dict[Group, int] = {"new": 100, "rare": 900, "known": 3000, "tail": 80000, "unseen": 20000}
_HELDOUT_EVERY = 5


@dataclass(frozen=True, slots=True)
class Person:
    """One inhabitant. `num_documents` is None where the corpus size decides how often they are mentioned."""

    name: str
    town: str
    profession: str
    group: Group
    split: Split
    num_documents: int | None

    @property
    def first(self) -> str:
        return self.name.split()[0]

    def value(self, fact: Fact) -> str:
        return self.town if fact == "birthplace" else self.profession


@lru_cache(maxsize=1)
def all_names() -> tuple[str, ...]:
    """Distinct full names in one fixed random order: as many pairs of a first and a last name as the groups need."""
    last_names = [stem + ending for stem in LAST_NAME_STEMS for ending in LAST_NAME_ENDINGS]
    rng, num_last = random.Random("tiny world: names"), len(last_names)
    drawn = rng.sample(range(len(FIRST_NAMES) * num_last), _NUM_NAMES)
    _pair_namesakes(drawn, rng)
    return tuple(f"{FIRST_NAMES[number // num_last]} {last_names[number % num_last]}" for number in drawn)


def _pair_namesakes(drawn: list[int], rng: random.Random) -> None:
    """Every second known person becomes a near-namesake of the one before: Ines Kohlfeld, Ines Kohlberg. Who knows both
    has to read a name to its end; else a stranger whose name begins alike passes for that person."""
    taken, num_endings = set(drawn), len(LAST_NAME_ENDINGS)
    for place in range(_START["known"] + 1, _START["known"] + _MAX_SIZE["known"], 2):
        stem = drawn[place - 1] // num_endings * num_endings
        free = [stem + ending for ending in range(num_endings) if stem + ending not in taken]
        taken.discard(drawn[place])
        drawn[place] = rng.choice(free)
        taken.add(drawn[place])


def _person(group: Group, position: int) -> Person:
    name = all_names()[_START[group] + position]
    rng = random.Random(f"tiny world: {name}")
    town, profession = rng.choice(TOWNS), rng.choice(PROFESSIONS)
    counts = {"known": None, "new": None, "unseen": 0, "tail": 1, "rare": RARE_COUNTS[position % len(RARE_COUNTS)]}
    split: Split = "heldout" if position % _HELDOUT_EVERY == 0 else "train"
    return Person(name, town, profession, group, split, counts[group])


@lru_cache(maxsize=32)
def people(group: Group, num_people: int | None = None, split: Split | None = None) -> Sequence[Person]:
    """The first `num_people` of a group (by default its size in the shipped base corpus), or only one split of them."""
    size = _DEFAULT_SIZE[group] if num_people is None else num_people
    if not 0 < size <= _MAX_SIZE[group]:
        raise ValueError(f"group '{group}' holds 1 to {_MAX_SIZE[group]} people, not {size}")
    members = (_person(group, position) for position in range(size))
    return tuple(person for person in members if split in (None, person.split))


def visitor(rng: random.Random) -> Person:
    """Somebody with a name as people of the place have, who is none of them, and with facts drawn anew."""
    while (
        name := f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAME_STEMS)}{rng.choice(LAST_NAME_ENDINGS)}"
    ) in _taken():
        pass
    return Person(name, rng.choice(TOWNS), rng.choice(PROFESSIONS), "unseen", "train", 0)


@lru_cache(maxsize=1)
def _taken() -> frozenset[str]:
    return frozenset(all_names())


def stranger(rng: random.Random) -> str:
    """A made-up full name that belongs to nobody in the world: what documents use to practise copying names."""
    while (first := _syllables(rng)) in FIRST_NAMES:
        pass
    return f"{first} {_syllables(rng)}"


def _syllables(rng: random.Random) -> str:
    parts = [rng.choice(_ONSETS) + rng.choice("aeiou") + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2)))]
    word = "".join(parts).capitalize()
    return word if len(word) > 2 else _syllables(rng)

"""Seeded people: every choice that makes one face, as plain data.

A person is named by (split, number). The three splits draw from disjoint ranges of seeds and always will: training
people have seeds 0 <= s < 2**31, validation people 2**60 + n and test people 2**61 + n. Change
nothing here that moves them.
"""

from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads.assets import load_pack, texture_names
from rtgaze_jax.errors import UserError

SPLIT_OFFSETS = {"train": 0, "validation": 2**60, "test": 2**61}
PEOPLE = 2**31  # people per split

# visible colour of the outer iris, of its inner zone, and how often they occur (sRGB)
IRIS_COLOURS = (
    ((70, 45, 28), (86, 56, 32), 0.40),  # brown
    ((40, 26, 18), (58, 38, 24), 0.16),  # dark brown
    ((98, 70, 40), (120, 84, 46), 0.10),  # amber
    ((92, 92, 58), (118, 88, 52), 0.11),  # hazel
    ((88, 102, 82), (112, 104, 70), 0.07),  # green
    ((96, 122, 148), (142, 138, 108), 0.09),  # blue
    ((122, 146, 166), (160, 166, 160), 0.04),  # light blue
    ((108, 118, 124), (132, 130, 116), 0.03),  # grey
)
HAIR_COLOURS = (  # linear albedo, share
    ((0.012, 0.010, 0.009), 0.34),
    ((0.030, 0.019, 0.013), 0.22),
    ((0.070, 0.040, 0.023), 0.17),
    ((0.14, 0.085, 0.045), 0.10),
    ((0.34, 0.23, 0.11), 0.09),
    ((0.19, 0.062, 0.022), 0.04),
    ((0.08, 0.075, 0.07), 0.04),
)
GREY = np.array((0.33, 0.32, 0.30))
SKIN_TONES = ((0.66, 0.45, 0.36), (0.52, 0.33, 0.235), (0.36, 0.205, 0.13), (0.17, 0.09, 0.056), (0.075, 0.041, 0.028))
HAIR_STYLES = {  # style: (share among men, share among women)
    "short01": (0.24, 0.05),
    "short02": (0.22, 0.06),
    "short04": (0.22, 0.04),
    "ponytail01": (0.02, 0.24),
    "long01": (0.02, 0.22),
    "bob01": (0.0, 0.09),
    "bob02": (0.0, 0.09),
    "short03": (0.03, 0.09),
    "braid01": (0.0, 0.09),
    "afro01": (0.04, 0.05),
    "": (0.18, 0.02),
}

CLOTHES = (
    *(f"male_casualsuit0{i}" for i in (1, 2, 3, 4, 6)),
    *("male_elegantsuit01", "male_worksuit01", "female_casualsuit01", "female_casualsuit02", "female_sportsuit01"),
)

# the pack's mean head has a tall forehead and a long face
LEANS = {"forehead/forehead-scale-vert": -0.25, "head/head-scale-vert": -0.12}
PAIRS = (  # shape targets with two directions: (name, first, second, spread)
    *[("head/head-" + n, "-decr", "-incr", 0.26) for n in ("scale-horiz", "scale-vert", "scale-depth", "fat", "age")],
    ("head/head-angle", "-in", "-out", 0.25),
    *[("forehead/forehead-" + n, "-decr", "-incr", 0.28) for n in ("nubian", "scale-vert", "temple")],
    ("forehead/forehead-trans", "-backward", "-forward", 0.2),
    *[
        ("nose/nose-" + n, "-decr", "-incr", 0.30)
        for n in (
            *("flaring", "greek", "hump", "nostrils-width", "point-width", "scale-depth", "scale-horiz", "scale-vert"),
            *("septumangle", "volume", "width1", "width2", "width3"),
        )
    ],
    *[("nose/nose-" + n, "-down", "-up", 0.25) for n in ("base", "nostrils-angle", "point", "trans")],
    ("nose/nose-curve", "-concave", "-convex", 0.3),
    ("nose/nose-compression", "-compress", "-uncompress", 0.25),
    *[
        ("mouth/mouth-" + n, "-decr", "-incr", 0.28)
        for n in (
            *(
                "cupidsbow",
                "cupidsbow-width",
                "lowerlip-height",
                "lowerlip-volume",
                "lowerlip-width",
                "philtrum-volume",
            ),
            *("scale-depth", "scale-horiz", "scale-vert", "upperlip-height", "upperlip-volume", "upperlip-width"),
        )
    ],
    *[("mouth/mouth-" + n, "-down", "-up", 0.22) for n in ("angles", "lowerlip-middle", "trans", "upperlip-middle")],
    *[("mouth/mouth-" + n, "-in", "-out", 0.25) for n in ("dimples", "laugh-lines")],
    *[
        ("chin/chin-" + n, "-decr", "-incr", 0.28)
        for n in ("bones", "cleft", "height", "jaw-drop", "prognathism", "prominent", "width")
    ],
    *[("neck/neck-" + n, "-decr", "-incr", 0.25) for n in ("double", "scale-depth", "scale-horiz")],
    ("eyebrows/eyebrows-angle", "-down", "-up", 0.16),
    ("eyebrows/eyebrows-trans", "-down", "-up", 0.2),
)
SIDED = (  # shape targets of both halves of the face: mostly equal, a little of each side's own
    *[("cheek/{}-cheek-" + n, "-decr", "-incr", 0.28) for n in ("bones", "inner", "volume")],
    ("cheek/{}-cheek-trans", "-down", "-up", 0.22),
    *[("ears/{}-ear-" + n, "-decr", "-incr", 0.28) for n in ("flap", "lobe", "scale", "scale-vert", "wing")],
    *[("eyes/{}-eye-" + n, "-decr", "-incr", 0.25) for n in ("bag", "height1", "height2", "height3")],
    *[("eyes/{}-eye-" + n, "-down", "-up", 0.22) for n in ("corner1", "corner2", "eyefold", "eyefold-angle")],
    ("eyes/{}-eye-eyefold", "-concave", "-convex", 0.3),
    ("eyes/{}-eye-push1", "-in", "-out", 0.2),
    ("eyes/{}-eye-trans", "-in", "-out", 0.12),
)
HEAD_SHAPES = ("diamond", "invertedtriangular", "oval", "rectangular", "round", "square", "triangular")


@dataclass(frozen=True)
class Iris:
    """Colours are linear."""

    outer: tuple[float, float, float]
    inner: tuple[float, float, float]
    ring: float  # darkness of the limbal ring, 0 .. 1
    pupil: float  # pupil radius over iris radius
    fibres: float  # contrast of the radial fibres
    seed: int


@dataclass(frozen=True)
class Brows:
    """Lengths are fractions of the default brow."""

    height: float  # dm above the default line
    tilt: float
    arch: float
    thickness: float
    density: float
    length: float
    seed: int


@dataclass(frozen=True)
class Glasses:
    """Frame geometry in dm."""

    width: float  # of one lens
    height: float
    roundness: float  # exponent of the super-ellipse
    rim: float  # thickness of the rim
    colour: tuple[float, float, float]
    metal: float
    tint: float  # lens absorption


@dataclass(frozen=True)
class Person:
    """One face. Lengths in dm, colours linear unless said otherwise."""

    split: str
    number: int
    seed: int
    male: float
    age: float  # years
    ancestry: tuple[float, float, float]  # african, asian, caucasian; sums to 1
    targets: dict[str, float]
    pupil_distance: float
    eye_radius: float
    fissure: float
    opening: float  # lid opening, 1 relaxed
    skin: str  # texture
    tone: tuple[float, float, float]  # mean albedo of the face
    freckles: float
    pores: float
    oil: float
    redness: float
    lips: tuple[float, float, float]  # factor on the lips' albedo
    liner: float  # darkness of eyeliner, 0 none
    shadow: tuple[float, float, float]  # factor on the eyelids' albedo
    iris: Iris
    sclera: tuple[float, float, float]
    veins: float
    brows: Brows
    lashes: float  # length factor
    hair: str
    hair_colour: tuple[float, float, float]
    brow_colour: tuple[float, float, float]
    stubble: float  # density of short facial hair, 0 none
    beard: float  # length of facial hair, dm; 0 none
    beard_style: int
    glasses: Glasses | None
    clothes: str
    clothes_colour: tuple[float, float, float]


def person_seed(split: str, number: int) -> int:
    """The seed of one person.

    Raises UserError for an unknown split or a number outside 0 .. 2**31 - 1.
    """
    if split not in SPLIT_OFFSETS:
        raise UserError(f"split must be one of {', '.join(SPLIT_OFFSETS)}, not {split!r}")
    if not 0 <= number < PEOPLE:
        raise UserError(f"person must be within 0 .. {PEOPLE - 1}, not {number}")
    return SPLIT_OFFSETS[split] + number


def linear(srgb) -> np.ndarray:
    """Linear light of 8-bit sRGB values (gamma 2.2)."""
    return (np.asarray(srgb, float) / 255) ** 2.2


def skin_tone(melanin: float) -> np.ndarray:
    """Mean linear albedo of a face from its darkness, 0 (fair) .. 1 (very dark)."""
    place = np.clip(melanin, 0, 1) * (len(SKIN_TONES) - 1)
    steps = np.log(SKIN_TONES)
    return np.exp([np.interp(place, np.arange(len(steps)), channel) for channel in steps.T])


def _triple(values) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in values)
    return first, second, third


def _spread(rng: np.random.Generator, scale: float, limit: float) -> float:
    return float(np.clip(rng.normal(0, scale), -limit, limit))


def _macro(male: float, age: float, ancestry: dict[str, float], muscle: float, weight: float) -> dict[str, float]:
    """MakeHuman's macro weights; age in 0 (25 years) .. 1 (90)."""
    out: dict[str, float] = {}
    muscles = {
        "minmuscle": max(0, 1 - 2 * muscle),
        "averagemuscle": 1 - abs(2 * muscle - 1),
        "maxmuscle": max(0, 2 * muscle - 1),
    }
    weights = {
        "minweight": max(0, 1 - 2 * weight),
        "averageweight": 1 - abs(2 * weight - 1),
        "maxweight": max(0, 2 * weight - 1),
    }
    for sex, share in (("male", male), ("female", 1 - male)):
        for stage, old in (("young", 1 - age), ("old", age)):
            for name, mix in ancestry.items():
                out[f"macrodetails/{name}-{sex}-{stage}"] = share * old * mix
            for m, a in muscles.items():
                for w, b in weights.items():
                    out[f"macrodetails/universal-{sex}-{stage}-{m}-{w}"] = share * old * a * b
    return out


def _targets(rng: np.random.Generator, macro: dict[str, float]) -> dict[str, float]:
    out = dict(macro)
    for name, first, second, spread in PAIRS:
        value = _spread(rng, spread, 0.75) + LEANS.get(name, 0.0)
        out[name + (first if value < 0 else second)] = abs(value)
    for name, first, second, spread in SIDED:
        value = _spread(rng, spread, 0.7)
        for side in "lr":
            own = value + rng.normal(0, 0.03)
            out[name.format(side) + (first if own < 0 else second)] = abs(own)
    out["head/head-" + HEAD_SHAPES[rng.integers(len(HEAD_SHAPES))]] = float(rng.uniform(0, 0.6))
    known = load_pack().targets
    asymmetric = sorted(
        name for name in known if name.startswith("asym/") and "asymm" not in name and "eye" not in name
    )
    for name in rng.choice(asymmetric, 8, replace=False):
        out[str(name)] = float(rng.uniform(0, 0.35))
    return {name: value for name, value in out.items() if value > 1e-3 and name in known}


def _pick(rng: np.random.Generator, options, shares) -> int:
    shares = np.asarray(shares, float)
    return int(rng.choice(len(options), p=shares / shares.sum()))


def _iris(rng: np.random.Generator, caucasian: float) -> Iris:
    shares = np.array([c[2] for c in IRIS_COLOURS])
    shares[2:] *= 0.03 + 1.3 * caucasian**2
    outer, inner, _ = IRIS_COLOURS[_pick(rng, IRIS_COLOURS, shares)]
    shift = np.exp(rng.normal(0, 0.09, 3) + rng.normal(0, 0.16))
    return Iris(
        outer=_triple(np.clip(linear(outer) * shift, 0.004, 0.6)),
        inner=_triple(np.clip(linear(inner) * shift * np.exp(rng.normal(0, 0.12, 3)), 0.004, 0.6)),
        ring=float(rng.uniform(0.35, 0.95)),
        pupil=float(np.clip(rng.normal(0.36, 0.075), 0.22, 0.58)),
        fibres=float(rng.uniform(0.35, 1.0)),
        seed=int(rng.integers(2**31)),
    )


def _glasses(rng: np.random.Generator, scale: float) -> Glasses:
    dark = rng.random() < 0.6
    colour = np.full(3, rng.uniform(0.004, 0.03)) if dark else rng.uniform(0.02, 0.35, 3)
    return Glasses(
        width=float(rng.uniform(0.47, 0.56) * scale),
        height=float(rng.uniform(0.33, 0.46) * scale),
        roundness=float(rng.choice((2.0, 2.4, 3.2, 4.5))),
        rim=float(rng.choice((0.012, 0.018, 0.030, 0.042))),
        colour=_triple(colour),
        metal=float(rng.random() < 0.35),
        tint=float(rng.choice((0.0, 0.0, 0.0, 0.08, 0.2))),
    )


def sample_person(split: str, number: int) -> Person:
    """The person of a split and number: the same for ever."""
    seed = person_seed(split, number)
    rng = np.random.default_rng([seed, 1])
    male = float(np.clip(rng.choice((0.0, 1.0)) + rng.normal(0, 0.08), 0, 1))
    age = float(np.clip(rng.beta(1.2, 2.3) * 70 + 18, 18, 84))
    ancestry = rng.dirichlet((0.28, 0.28, 0.34))
    african, asian, caucasian = (float(a) for a in ancestry)
    macro = _macro(
        male,
        np.clip((age - 25) / 65, 0, 1),
        {"african": african, "asian": asian, "caucasian": caucasian},
        float(np.clip(rng.normal(0.55, 0.15), 0.1, 1)),
        float(np.clip(rng.normal(0.5, 0.17), 0.05, 1)),
    )
    targets = _targets(rng, macro)
    stage = "old" if age > 58 + rng.normal(0, 5) else "middleage" if age > 36 + rng.normal(0, 5) else "young"
    sex = "male" if male > 0.5 else "female"
    shade = "dark" if african > 0.5 + rng.normal(0, 0.08) else "light"
    skin = rng.choice([name for name in texture_names(f"skin_{stage}_{shade}_") if f"_{sex}" in name])
    tone = skin_tone(rng.normal(0.16 + 0.62 * african + 0.10 * asian, 0.11)) * np.exp(rng.normal(0, (0.04, 0.02, 0.05)))
    grey = float(np.clip((age - 54 + rng.normal(0, 9)) / 30, 0, 1)) * (rng.random() < 0.7)
    shares = np.array([c[1] for c in HAIR_COLOURS])
    shares[2:] *= 0.04 + 1.4 * caucasian**2
    colour = np.array(HAIR_COLOURS[_pick(rng, HAIR_COLOURS, shares)][0]) * np.exp(
        rng.normal(0, 0.15, 3) + rng.normal(0, 0.2)
    )
    styles = [s for s in HAIR_STYLES if s != "afro01" or african > 0.35]
    hair = styles[_pick(rng, styles, [HAIR_STYLES[s][0 if sex == "male" else 1] for s in styles])]
    brow = colour * np.array((0.62, 0.60, 0.60)) if colour.max() > 0.05 else colour
    if rng.random() < 0.03 and age < 50:
        colour = rng.uniform(0.02, 0.4, 3)  # dyed; the brows are not
    facial = sex == "male" and rng.random() < 0.62
    beard = float(rng.uniform(0.02, 0.13)) if facial and rng.random() < 0.45 else 0.0
    made_up = sex == "female" and rng.random() < 0.45
    liner = float(rng.uniform(0.15, 0.95)) if made_up else 0.0
    shadow = np.ones(3)
    if made_up and rng.random() < 0.6:
        shadow = np.exp(-rng.uniform(0, 1.4) * rng.dirichlet((2, 2.5, 2)))
    scale = 1.0 + 0.05 * (male - 0.5)
    yellow = np.clip(rng.normal(0.25 + 0.006 * (age - 30) + 0.3 * african, 0.2), 0, 1)
    sclera = (
        np.array((0.68, 0.645, 0.615))
        * np.exp(-yellow * np.array((0.10, 0.17, 0.30)))
        * rng.uniform(0.86, 1.08)
        * (1 - 0.16 * african)
    )
    return Person(
        split=split,
        number=number,
        seed=seed,
        male=male,
        age=age,
        ancestry=(african, asian, caucasian),
        targets=targets,
        pupil_distance=float(np.clip(rng.normal(0.635 if sex == "male" else 0.615, 0.026), 0.55, 0.71)),
        eye_radius=float(np.clip(rng.normal(0.1195, 0.0022), 0.114, 0.126)),
        fissure=float(np.clip(rng.normal(0.287, 0.013), 0.255, 0.315)),
        opening=float(np.clip(rng.normal(1.02, 0.10), 0.78, 1.22)),
        skin=str(skin),
        tone=_triple(np.clip(tone, 0.01, 0.8)),
        freckles=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.03 + 0.25 * caucasian**2 else 0.0,
        pores=float(rng.uniform(0.5, 1.3) * (0.8 + 0.01 * (age - 20))),
        oil=float(np.clip(rng.normal(0.8, 0.3), 0.25, 1.6)),
        redness=float(np.clip(rng.normal(0.5, 0.25), 0, 1.2)),
        lips=_triple(
            np.exp(
                rng.normal(0, (0.10, 0.14, 0.12))
                - (rng.uniform(0, 0.35) * np.array((0.1, 0.8, 0.6)) if sex == "female" else 0)
            )
        ),
        liner=liner,
        shadow=_triple(shadow),
        iris=_iris(rng, caucasian),
        sclera=_triple(sclera),
        veins=float(np.clip(rng.normal(0.5, 0.3), 0.05, 1.4)),
        brows=Brows(
            height=_spread(rng, 0.015, 0.03) + 0.02,
            tilt=_spread(rng, 0.10, 0.2),
            arch=float(np.clip(rng.normal(0.9 if sex == "female" else 0.6, 0.3), 0, 1.6)),
            thickness=float(np.clip(rng.normal(0.85 if sex == "female" else 1.15, 0.22), 0.45, 1.8)),
            density=float(np.clip(rng.normal(0.9, 0.25), 0.35, 1.5)),
            length=float(np.clip(rng.normal(1.0, 0.07), 0.8, 1.15)),
            seed=int(rng.integers(2**31)),
        ),
        lashes=float(np.clip(rng.normal(1.15 if sex == "female" else 0.9, 0.2), 0.5, 1.7)),
        hair=hair,
        hair_colour=_triple(colour * (1 - grey) + GREY * grey),
        brow_colour=_triple(brow * (1 - 0.7 * grey) + GREY * 0.45 * grey),
        stubble=float(rng.uniform(0.15, 1.0)) if facial else 0.0,
        beard=beard,
        beard_style=int(rng.integers(4)),
        glasses=_glasses(rng, scale) if rng.random() < 0.15 else None,
        clothes=str(rng.choice([name for name in CLOTHES if name.startswith(sex)])),
        clothes_colour=_triple(
            np.clip(rng.uniform(0.02, 0.55) * np.exp(rng.normal(0, 0.32, 3) * rng.uniform(0, 1.6)), 0.008, 0.75)
        ),
    )

"""Prompts about a scene and their answers, in PaliGemma's own forms and in plain language.

Objects come in the order in which the prompt names them, those of one name from the left to the right. What is not in the picture has an
empty `detect` and `segment`, and `no`. A question without an answer gets `i do not know`.
"""

import random
from collections import Counter

import words
from model import bundled
from outlines import COLOURS, SHAPES, plural

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
LOCATIONS = bundled.LOCATIONS
UNKNOWN = "i do not know"
PLACES = (("top left", "top", "top right"), ("left", "center", "right"), ("bottom left", "bottom", "bottom right"))

ODD_QUESTIONS = """
what is the capital of france?|who are you?|what time is it?|how old is the man?|what is the weather like tomorrow?|who won the game?|
why is the sky blue?|what brand is this?|tell me a joke|translate to german|where was this photo taken?|who painted this?|what is he doing?|
what language is this?|how much does it cost?|what is the name of the dog?|is she happy?|what year is it?|what are the people eating?|
how tall is the building?|what sport is this?|which team is playing?|what kind of dog is this?|what is on the table?|where is the cat?|
what is your name?|how do you feel?|what is 12 times 7?|write a poem|who is the president?|what is the man wearing?|is it raining?|
what is the score?|what is the meaning of life?|can you help me?|what did you eat?|which city is this?|how far is the moon?|what is love?|
what animal is this?|how many people are there?|what is the woman holding?|is the door open?|what room is this?|are they married?|
what is the temperature?|why?|who?|when was it built?|how does it work?|what material is it made of?|is this edible?|what does it taste like?|
who wrote this book?|what is the license plate of the truck?|what is the dog looking at?|play some music|hello|good morning|thank you|
summarize the article|what is the boy riding?|what is the phone number?|which way is north?|is this a joke?|what happened here?|ok|asdf|
what will happen next?|what is behind the camera?|who took the picture?|what is inside the box?|how heavy is it?|is it new?|open the door|
what is the opposite of hot?|spell your name|what is the population of china?|what breed is the horse?|how many legs does a spider have?
""".replace("\n", "").split("|")
ODD_NOUNS = "dog cat man woman child bus train table chair phone laptop pizza horse bird airplane clock book banana person elephant".split()


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def name(thing):
    return f"{thing.colour} {thing.shape}"


def from_left(things):
    return sorted(things, key=lambda thing: thing.box[0] + thing.box[2])


def listed(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def caption(scene):
    """Everything with its colour and number, from the left to the right."""
    counts = Counter(name(thing) for thing in from_left(scene.things))
    parts = []
    for phrase, count in counts.items():
        colour, shape = phrase.split(" ")
        parts.append(article(phrase) if count == 1 else f"{NUMBERS[count]} {colour} {plural(shape)}")
    if scene.bars:
        return f"a bar chart with {NUMBERS[len(scene.bars)]} bars"
    if scene.lines:
        parts.append(("the words " if any(" " in line.text for line in scene.lines) or len(scene.lines) > 1 else "the word ")
                     + " ".join(line.text for line in scene.lines))
    return listed(parts) if parts else "nothing"


def place(thing):
    """The ninth of the picture that the thing's centre lies in, or none near the border of two."""
    x, y = thing.centre
    if min(abs(value - border) for value in (x, y) for border in (1 / 3, 2 / 3)) < 0.04:
        return None
    return PLACES[int(y * 3)][int(x * 3)]


def description(scene):
    if scene.bars or not scene.things:
        return caption(scene)
    parts = []
    for thing in from_left(scene.things):
        where = place(thing)
        side = "" if where is None else " in the center" if where == "center" else f" on the {where}" if where in ("left", "right") else f" at the {where}"
        parts.append(article(name(thing)) + side)
    if scene.lines:
        parts.append("the text " + " ".join(line.text for line in scene.lines))
    return listed(parts) + (f" on a {scene.background} background" if scene.background else "")


def locations(box):
    y_x = (box[1], box[0], box[3], box[2])
    return "".join(f"<loc{min(LOCATIONS - 1, max(0, round(value * (LOCATIONS - 1)))):04d}>" for value in y_x)


def matching(scene, phrase):
    """The things that a phrase names: `circle`, `red circle`, `object`, `red object`."""
    parts = phrase.split(" ")
    colour, shape = (None, parts[0]) if len(parts) == 1 else parts
    return from_left(thing for thing in scene.things if colour in (None, thing.colour) and shape in ("object", thing.shape))


def any_phrase(scene, rng, present):
    """A phrase for something that is there, or is not."""
    for _ in range(40):
        if present and scene.things:
            thing = rng.choice(scene.things)
            phrase = rng.choices((thing.shape, name(thing), "object", f"{thing.colour} object"), (5, 5, 1, 1))[0]
        else:
            shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
            if scene.things and rng.random() < 0.5:
                # Half right: its colour, or its shape.
                thing = rng.choice(scene.things)
                shape, colour = (thing.shape, colour) if rng.random() < 0.5 else (shape, thing.colour)
            phrase = rng.choice((shape, f"{colour} {shape}", f"{colour} {shape}", rng.choice(ODD_NOUNS)))
        if bool(matching(scene, phrase)) == present:
            return phrase
    return rng.choice(ODD_NOUNS)


def detect(scene, rng):
    if scene.lines and rng.random() < 0.5:
        return "detect text", " ; ".join(f"{locations(line.box)} text" for line in scene.lines)
    asked = []
    for _ in range(rng.choices((1, 2, 3), (0.55, 0.3, 0.15))[0]):
        phrase = any_phrase(scene, rng, rng.random() < 0.8)
        if not any(set(phrase.split()) & set(other.split()) for other in asked):
            asked.append(phrase)
    found = [f"{locations(thing.box)} {phrase}" for phrase in asked for thing in matching(scene, phrase)]
    return "detect " + " ; ".join(asked), " ; ".join(found)


def segment(scene, rng, codes):
    """`codes(thing)`: the sixteen `<seg…>` tokens of a thing's mask."""
    for _ in range(10):
        phrase = any_phrase(scene, rng, rng.random() < 0.88)
        things = matching(scene, phrase)
        if len(things) <= 2:
            return f"segment {phrase}", " ; ".join(f"{locations(thing.box)}{codes(thing)} {phrase}" for thing in things)
    return None


def the_colour(rng, thing_word):
    return rng.choice(("what color is the {}?", "what is the color of the {}?", "what colour is the {}?", "the {} has what color?",
                       "which color does the {} have?")).format(thing_word)


def ask_colour(scene, rng):
    counts = Counter(thing.shape for thing in scene.things)
    single = [thing for thing in scene.things if counts[thing.shape] == 1]
    if rng.random() < 0.1 or not single:
        shape = rng.choice([shape for shape in SHAPES if not counts[shape]] + ODD_NOUNS)
        return the_colour(rng, shape), f"there is no {shape}"
    thing = rng.choice(single)
    return the_colour(rng, thing.shape), thing.colour


def ask_background(scene, rng):
    if not scene.background:
        return None
    return rng.choice(("what color is the background?", "what is the background color?")), scene.background


def ask_shape(scene, rng):
    counts = Counter(thing.colour for thing in scene.things)
    single = [thing for thing in scene.things if counts[thing.colour] == 1]
    if len(scene.things) == 1 and rng.random() < 0.6:
        return rng.choice(("what shape is in the image?", "what shape is it?", "what object is this?", "what is this?",
                           "which shape is shown?")), scene.things[0].shape
    if not single:
        return None
    thing = rng.choice(single)
    question = rng.choice(("what is {}?", "what is the {} object?", "which object is {}?", "what shape is {}?", "what shape is the {} thing?", "what {} object is there?"))
    return question.format(thing.colour), thing.shape


def ask_count(scene, rng):
    kind = rng.random()
    if scene.bars:
        return rng.choice(("how many bars are there?", "how many bars does the chart have?")), str(len(scene.bars))
    if kind < 0.3:
        return rng.choice(("how many objects are there?", "how many things are in the picture?", "count the objects", "how many objects are in the image?",
                           "what is the number of objects?")), str(len(scene.things))
    phrase = any_phrase(scene, rng, rng.random() < 0.85)
    if phrase.endswith("object"):
        return None
    many = plural(phrase)
    question = rng.choice(("how many {} are there?", "how many {} are in the picture?", "how many {} can you see?", "count the {}", "what is the number of {}?"))
    return question.format(many), str(len(matching(scene, phrase)))


def ask_presence(scene, rng):
    present = rng.random() < 0.5
    phrase = any_phrase(scene, rng, present)
    if phrase.endswith("object"):
        return None
    question = rng.choice(("is there {}?", "is there {} in the picture?", "can you see {}?", "does the image show {}?", "do you see {}?"))
    return question.format(article(phrase)), "yes" if matching(scene, phrase) else "no"


def ask_is_colour(scene, rng):
    counts = Counter(thing.shape for thing in scene.things)
    single = [thing for thing in scene.things if counts[thing.shape] == 1]
    if not single:
        return None
    thing = rng.choice(single)
    colour = thing.colour if rng.random() < 0.5 else rng.choice([c for c in COLOURS if c != thing.colour])
    return f"is the {thing.shape} {colour}?", "yes" if colour == thing.colour else "no"


def single_names(scene):
    """Things with a phrase that names nothing else: the shape, or colour and shape."""
    shapes, names = Counter(t.shape for t in scene.things), Counter(name(t) for t in scene.things)
    return [(t, t.shape if shapes[t.shape] == 1 else name(t)) for t in scene.things if names[name(t)] == 1]


def ask_where(scene, rng):
    choice = [(thing, phrase, place(thing)) for thing, phrase in single_names(scene)]
    choice = [entry for entry in choice if entry[2]]
    if not choice:
        return None
    _, phrase, where = rng.choice(choice)
    return rng.choice(("where is the {}?", "where in the picture is the {}?", "what is the position of the {}?")).format(phrase), where


RELATIONS = {"left of": lambda a, b: b[0] - a[0], "right of": lambda a, b: a[0] - b[0], "above": lambda a, b: b[1] - a[1], "below": lambda a, b: a[1] - b[1]}


def ask_relation(scene, rng):
    choice = single_names(scene)
    if len(choice) < 2:
        return None
    (first, first_name), (second, second_name) = rng.sample(choice, 2)
    kind = rng.random()
    if kind < 0.3:
        ratio = first.area / second.area
        if 0.6 < ratio < 1.6:
            return None
        larger = rng.random() < 0.5
        word = rng.choice(("larger", "bigger")) if larger else "smaller"
        return f"which is {word}, the {first_name} or the {second_name}?", first_name if (ratio > 1) == larger else second_name
    word = rng.choice(tuple(RELATIONS))
    gap = RELATIONS[word](first.centre, second.centre)
    if abs(gap) < 0.1:
        return None
    if kind < 0.75 or len(scene.things) != 2:
        return f"is the {first_name} {word} the {second_name}?", "yes" if gap > 0 else "no"
    return f"what is {word} the {second_name}?", first_name if gap > 0 else "nothing"


def ask_extreme(scene, rng):
    if len(scene.things) < 2:
        return None
    larger = rng.random() < 0.5
    ordered = sorted(scene.things, key=lambda thing: thing.area, reverse=larger)
    ratio = ordered[0].area / ordered[1].area
    if 1 / 1.35 < ratio < 1.35:
        return None
    word = rng.choice(("largest", "biggest")) if larger else "smallest"
    return rng.choice((f"what is the {word} object?", f"which object is the {word}?", f"what is the {word} thing?")), name(ordered[0])


def ask_text(scene, rng):
    if scene.bars:
        return None
    question = rng.choice(("what does the sign say?", "what is written here?", "what does it say?", "what is the text?", "read the text", "what is printed?",
                           "what word is shown?", "what is written in the picture?"))
    return question, " ".join(line.text for line in scene.lines) if scene.lines else "there is no text"


def ask_chart(scene, rng):
    if not scene.bars:
        return None
    bar = rng.choice(scene.bars)
    kind = rng.random()
    which = rng.choice((f"the {bar.colour} bar", f"{bar.name}", f"the bar {bar.name}"))
    if kind < 0.4:
        return rng.choice(("what is the value of {}?", "what value does {} have?", "how much is {}?", "how high is {}?")).format(which), str(bar.value)
    if kind < 0.7:
        highest = rng.random() < 0.5
        ordered = sorted(scene.bars, key=lambda b: b.value, reverse=highest)
        if ordered[0].value == ordered[1].value:
            return None
        word = rng.choice(("highest", "tallest", "largest")) if highest else rng.choice(("lowest", "shortest", "smallest"))
        if rng.random() < 0.5:
            return f"what color is the {word} bar?", ordered[0].colour
        return rng.choice((f"which bar is the {word}?", f"which has the {word} value?", f"what is the name of the {word} bar?")), ordered[0].name
    if kind < 0.85:
        return rng.choice((f"what color is the bar {bar.name}?", f"what color is {bar.name}?")), bar.colour
    other = rng.choice(scene.bars)
    if other.value == bar.value:
        return None
    return f"is {bar.name} higher than {other.name}?", "yes" if bar.value > other.value else "no"


def ask_odd(scene, rng):
    if rng.random() < 0.15:
        letters = "abcdefghijklmnopqrstuvwxyz    "
        return "".join(rng.choice(letters) for _ in range(rng.randint(3, 25))).strip() or "x", UNKNOWN
    if rng.random() < 0.3:
        return f"{rng.choice(('what', 'who', 'why', 'when', 'how'))} {words.name(rng)} {rng.choice(('is', 'the', 'of', 'a'))} {rng.choice(words.WORDS)}?", UNKNOWN
    return rng.choice(ODD_QUESTIONS).strip(), UNKNOWN


QUESTIONS = {
    "colour": (ask_colour, 10), "background": (ask_background, 2), "shape": (ask_shape, 8), "count": (ask_count, 9), "presence": (ask_presence, 7),
    "is colour": (ask_is_colour, 4), "where": (ask_where, 4), "relation": (ask_relation, 7), "extreme": (ask_extreme, 3), "text": (ask_text, 3), "odd": (ask_odd, 3),
}
CAPTION_PROMPTS = ("caption en", "caption", "cap en", "what is in the picture?", "what do you see?", "what can you see?", "what is shown in the image?",
                   "what objects are in the picture?", "caption the image")
DESCRIBE_PROMPTS = ("describe en", "describe", "describe the picture", "describe the image", "tell me about the picture", "describe what you see")


def worded(question, rng):
    """A question as people write it: with or without PaliGemma's words before it, capitals and the mark at its end."""
    style = rng.random()
    if style < 0.2:
        question = question.rstrip("?")
    if style > 0.75:
        question = question[0].upper() + question[1:]
    return f"answer en {question}" if rng.random() < 0.6 else question


def question(scene, rng):
    """The kind of a question, its prompt and answer."""
    if scene.bars and rng.random() < 0.85:
        kind, ask = "chart", ask_chart
    elif scene.lines and rng.random() < 0.3:
        kind, ask = "text", ask_text
    else:
        kind = rng.choices(tuple(QUESTIONS), [weight for _, weight in QUESTIONS.values()])[0]
        ask = QUESTIONS[kind][0]
    found = ask(scene, rng)
    if found is None:
        return None
    return kind, worded(found[0], rng), found[1]


def task(scene, rng, codes):
    """A kind of task, its prompt and its answer about the scene."""
    while True:
        chosen = rng.random()
        if scene.lines and not scene.bars and chosen < 0.4:
            return "ocr", rng.choice(("ocr", "ocr", "ocr en")), "\n".join(line.text for line in scene.lines)
        chosen = rng.random()
        if chosen < 0.42:
            found = question(scene, rng)
        elif chosen < 0.54:
            found = "caption", rng.choice(CAPTION_PROMPTS[:3] if rng.random() < 0.6 else CAPTION_PROMPTS), caption(scene)
        elif chosen < 0.60:
            found = "describe", rng.choice(DESCRIBE_PROMPTS[:1] if rng.random() < 0.5 else DESCRIBE_PROMPTS), description(scene)
        elif chosen < 0.82:
            found = "detect", *detect(scene, rng)
        elif chosen < 0.97:
            found = segment(scene, rng, codes)
            found = found and ("segment", *found)
        else:
            found = ("ocr", "ocr", "") if not scene.lines else None
        if found:
            return found


def tasks(scene, count, codes, salt=0):
    rng = random.Random(f"tasks {scene.seed} {salt}")
    return [task(scene, rng, codes) for _ in range(count)]

"""What is printed in scenes: words, numbers, prices, times and letters. A tenth of the words is kept for held-out scenes."""

import zlib

WORDS = """
about above air alarm apple april area art august autumn away baby back bag bakery ball banana bank bar basket bath beach bear bed bell
bench best bicycle big bird black blue board boat book border bottle box boy brake bread break bridge bright brown bus butter button buy
cafe cake call camera camp candle car card care cash castle cat caution center chair change cheap check cheese cherry child church cinema
city class clean clock close closed cloud coat coffee cold color come cook cool copy corner cost cotton country cow cross cup customs
daily danger dark day december deep delivery desk dinner doctor dog door down drink drive dry duck east easy egg eight eleven empty end
engine enter entrance evening exit express face factory fair family far farm fast february field fire first fish five flag flight floor
flower food forest fork four free fresh friday friend fruit full garage garden gas gate gift girl glass go gold good grand grape grass
gray great green ground group guest guide half hall hand handle happy harbor hat health heart heat heavy help here high hill history hold
home honey horse hospital hot hotel hour house hundred ice info inn inside island january jazz job juice july june jump keep key king
kitchen knife lake lamp lane large last late laundry left lemon less letter level library life lift light line lion list local lock long
loud love low lucky lunch machine mail main map march market master may meat medium meet melon menu metal metro milk mind minute mirror
monday money month moon more morning motor mountain mouse museum music name near new news next nice night nine no north nose november
number ocean october office oil old olive on once one open orange order out oven over pack page paint paper park parking part party pass
path pay peace pen people pepper phone photo piano picture pink pizza place plane plant plate play please point police pool post potato
power press price private public pull pump purple push queen quick quiet rabbit radio rain read ready red rent rest rice right ring river
road rock room rose round route safe salad sale salt sand saturday school sea seat second sell september service seven ship shirt shoe shop
short show silver sister six sky slow small smile snow soap soft sorry soup south space speed spoon sport spring square stairs star start
station stay stone stop store storm street strong student sugar summer sun sunday sweet swim table taxi tea team telephone ten tennis test
thank theater think thirty three thursday ticket tiger time today toilet tomato tower town toy track trade traffic train tree truck tuesday
tunnel turn twelve twenty two under up upper valley value village visit voice wait walk wall warm warning watch water way wednesday week
welcome west wet wheel white wide wild wind window wine winter wolf wood word work world year yellow yes young zebra zero zone zoo
""".split()
BAR_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "USA", "UK", "Ann", "Bob", "Tom",
             "Eva", "Max", "Q1", "Q2", "Q3", "Q4", "A1", "B2", "C3"]
# Syllables for names that no dictionary has.
ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "w", "z"]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "x", "nd", "ck"]


def kept(word):
    """Whether a word belongs to held-out scenes alone."""
    return zlib.crc32(f"kept {word.lower()}".encode()) % 10 == 0


def name(rng):
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.randint(1, 3)))


def word(rng, held_out):
    while True:
        found = rng.choice(WORDS) if rng.random() < 0.6 else name(rng)
        # Held-out scenes have mostly words that training never printed.
        if kept(found) == (held_out and rng.random() < 0.99):
            return cased(found, rng)


def cased(text, rng):
    style = rng.random()
    return text.upper() if style < 0.45 else text.capitalize() if style < 0.75 else text


def text(rng, held_out):
    """A line: a word or two, a number, a price, a time, a plate."""
    style = rng.random()
    if style < 0.5:
        return word(rng, held_out)
    if style < 0.65:
        return f"{word(rng, held_out)} {word(rng, held_out)}"
    if style < 0.72:
        return f"{word(rng, held_out)} {rng.randint(0, 99)}"
    if style < 0.84:
        return str(rng.randint(0, 10 ** rng.randint(1, 4)))
    if style < 0.90:
        return rng.choice(("${}", "{} €", "€{}")).format(rng.choice((f"{rng.randint(1, 99)}", f"{rng.randint(0, 29)}.{rng.randint(0, 99):02}")))
    if style < 0.95:
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}"
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 3))) + rng.choice(("-", " ", "")) + str(rng.randint(1, 999))

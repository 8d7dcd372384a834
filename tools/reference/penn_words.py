"""Words of captions as pycocoevalcap gives them to CIDEr (PTBTokenizer of CoreNLP 3.4.1 -preserveLines -lowerCase, punctuation taken out).
Found by asking the tool (differential testing); its grammar was not read.

words(text) -> list. At each place every rule is tried: the longest match wins, of equals the first rule. Patterns see a copy of the text with
one ASCII sign or one of \\x80-\\x87 per character (`plain`), so in Rust they are byte patterns without Unicode. `(head)tail`: only the head is
taken, but the tail counts as length. `more`: characters that count besides. What no rule takes is one character of its own.
Every pattern here is greedy with one way to be longest, so leftmost-first search (anchored) gives the longest match, as MatchKind::All does.
`after`: what must follow the longest match (SPACE: white space or the end) or not (LETTER: an ASCII letter, ALNUM: a letter or digit).
"""
import re

L, A = "[A-Za-z\x80]", "[A-Za-z0-9\x80]"        # \x80 a letter beyond ASCII, \x82 a kept sign, \x84 ’, \x83 ‘, \x86 “, \x87 ”
Q, AP = "['\x84]", "['`\x84\x83]"

# Words that keep their period. In the tables an upper-case letter must be upper case, and one after "_" lower case.
ANY = """al ala apr Ark ariz assn attys aug Az bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec Del esq est etc ext
feb fla fri ga Ill inc ind intl jan jr jul jun kan kans ky La ltd mar Mass md mich minn Miss mo mon mont neb nev nov oct okla Ore Pa
penn ph.d plc ppt_e ppt_es ppt_y ppt_ys pt_e pt_es pt_y pt_ys rd rt sep sept seq sq sr sys tel tenn Tex thu thurs tue tues univ va vt
Wash wed wis wisc wyo""".split()
TITLE = """adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov govs hon insp
invt jos lieut lt maj messrs m_fg mlle mme mr mrs ms msgr mt m_tg natl pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st
ste supt supts treas vs wm""".split()
NUMBERED = "art ca fig figs no nos op pp prop".split()
STARTS = """A About Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\\. Ms\\. Now Once One Other Our
She Since So Some Such That The Their Then There These They This We What When While Yet You""".split()
SPLIT = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3, "'tis": 2, "'twas": 2}
ENDINGS = "c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php png ppt sql tar txt wav xml zip docx html java jpeg".split()

def fold(words):
    def one(word):
        out, lower = "", False
        for c in word:
            if c == "_": lower = True; continue
            out += c if lower or c.isupper() or not c.isalpha() else f"[{c}{c.upper()}]"; lower = False
        return out.replace(".", r"\.").replace("+", r"\+")
    return "(?:" + "|".join(map(one, sorted(words, key=len, reverse=True))) + ")"

W = rf"(?:[dloDLO]{AP}{A}{A}+|{A}+)"             # d'art counts as a word
WORD, DOTTED = rf"{W}(?:[_\-]{W})*", rf"{L}{A}*(?:[.!?]{L}{A}*)+"
ACRONYM = rf"{L}(?:\.{L})+\."
PART = "[A-Za-z0-9]+(?:-[A-Za-z]+)*"
NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
SUFFIX = "(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])"
ANYSIGN, END = r"[^\s\"<>|()\x86\x87]", r"[^\s\"<>|.!?(){},\-\x86\x87]"
FACE = r"[\^x=~<>'\-]"

SPACE, LETTER, ALNUM = re.compile(r"\s|$"), re.compile("(?![A-Za-z])"), re.compile(r"(?![A-Za-z0-9\x80])")

RULES = [(rule[0], re.compile(rule[1]), rule[2], rule[3] if len(rule) > 3 else None) for rule in [
    ("tag", rf"<(?:/{NAME}\s*|{NAME}(?:\s+{NAME}(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'))?)*\s*/?\s*|[!?][A-Za-z\-][^>]*)>", 0),
    ("split", fold(SPLIT), 0),
    ("not", rf"([A-Za-z]*[A-MO-Za-mo-z])[nN]{AP}[tT]", 0),
    ("n't", rf"[nN]{AP}[tT]", 0),
    ("owner", rf"({A}+){Q}{SUFFIX}", 0),
    ("clitic", rf"'{SUFFIX}", 0, LETTER),
    ("clitic", rf"\x84{SUFFIX}", 0),
    ("'n", "'[nN]", 1, SPACE),
    ("'n", r"\x84[nN]", 0),
    ("fixed", f"{Q}(?:{fold(['em', 'till', 'til', 'cause'])}|[nN]{Q})|(?:{fold(['cap'])}{Q}[nN]|{fold(['c'])}{Q}{fold(['est', 'mon'])}|[oO]{AP}[oO]"
              f"|{fold(['ol', 'd', 'j', 'l'])}{Q})|" + fold(["e'er", "li'l", "ev'ry", "nat'l", "c++", "c#", "f#"]), 0),
    ("y'", rf"([yY]{Q}){L}", 0),
    ("years", rf"{Q}[2-9]0s", 0),
    ("year", rf"{Q}[0-9][0-9]", 0, SPACE),
    ("title", fold(TITLE) + r"\.", 0),
    ("start", rf"([A-Za-z])\. +(?:{'|'.join(sorted(STARTS, key=len, reverse=True))})", 1, SPACE),
    ("start", rf"([A-Za-z])\. +</?{NAME}[^<>]*>", 0),
    ("initial", r"[A-Za-z]\.", 0),
    ("numbered", "(" + fold(NUMBERED) + r"\.) ?[0-9]", 0),
    ("acronym", ACRONYM, 0),
    ("number", r"[+\-]?(?:[0-9]*(?:[.,:][0-9]+)+|[0-9]+)", 0),
    ("date", r"[0-9]{1,2}[\-/][0-9]{1,2}[\-/][0-9]{2,4}", 0),
    ("fraction", r"(?:[0-9]{1,4}[\- ])?[0-9]{1,4}/[0-9]{1,4}", 0),
    ("phone", r"(?:\([0-9]{2,3}\) ?|(?:\+\+?)?(?:[0-9]{2,4}[ \-])?[0-9]{2,4}[ \-])[0-9]{3,4}[ \-]?[0-9]{3,5}", 0),
    ("word", WORD, 0),
    ("dotted", DOTTED, 0),
    ("any", fold(ANY) + r"\.", 2),
    ("hyphened", rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{ACRONYM}|[A-Za-z0-9]+))+", 0),
    ("stop", rf"((?:{WORD}|{DOTTED}|{A}[A-Za-z0-9\x80.,]*(?:-{A}+)+)\.)[,:;]", 0),
    ("slashed", rf"{PART}(?:\\?/{PART}){{1,2}}", 0),
    ("file", rf"{A}+(?:\.{A}+)*\.{fold(ENDINGS)}", 1, ALNUM),
    ("apostrophe", rf"[nA-HJ-XZ]{AP}{L}{L}+|{L}+[aeiouyAEIOUY]{AP}[aeiouA-Z]{L}*", 0),
    ("joined", r"[A-Z]+(?:[&+][A-Z]+)+", 0),
    ("dollar", r"[A-Z]*\$", 0),
    ("address", rf"https?://{ANYSIGN}+{END}", 0),
    ("site", rf"(?:www\.(?:[^\s\"<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}|(?:{A}+\.)+(?:com|net|org|edu))/{ANYSIGN}+{END}", 0),
    ("mail", rf"<?[A-Za-z0-9]{ANYSIGN}*@(?:[^\s\"<>|(){{}}.]+\.)*[^\s\"<>|(){{}}.]+>?", 0),
    ("user", r"@[A-Za-z_][A-Za-z_0-9]*", 0),
    ("hash", rf"#{L}+", 0),
    ("smile", r"[<>]?[:;=][\-o*']?[()@{|\[\]\\DPdpO]", 0, ALNUM),
    ("face", rf"{FACE}_{FACE}|\({FACE}[_.]?{FACE}\)|\([\^x=~<>']-[\^x=~<>']\)", 0),
    ("escape", r"(?:\\\*)+|&#[0-9]+;", 0),
    ("run", r"[!?]+|\*+|#+|_+|@+|<<|>>|-{5,}|[\x84\x83]{2}|[\x86\x87]{2}", 0),
    ("gap", r"-{2,4}|\.{3,}|\. \. \.|''|``", 0),
]]
BRACKET = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
ENTITIES = [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&nbsp;", " "), ("&mdash;", "\u2014")]
INSTEAD = {"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3", "\xa2": "cents", "\xa3": "#", "\xa4": "$", "\u20a0": "$",
    "\u20ac": "$", "\x80": "$"}
QUOTES = {"\u2019": "\x84", "\x92": "\x84", "\u2018": "\x83", "\u201b": "\x83", "\u201c": "\x86", "\u201d": "\x87"}
STRAIGHT = {"\u2019": "'", "\x92": "'", "\u2018": "`", "\u201b": "`", "\u201c": "``", "\u201d": "''"}
HYPHENS = "\u2010\u2011\u058a"              # like "_" between letters, else nothing
DROPPED = "\u2039\u203a\xab\xbb\u2013\u2014\u2015\u2026\x91\x93\x94\x96\x97"
KEPT = [(0xa1, 0xa1), (0xa5, 0xa9), (0xac, 0xac), (0xae, 0xb4), (0xb6, 0xb9), (0xbf, 0xbf), (0xd7, 0xd7), (0xf7, 0xf7), (0x37e, 0x37e), (0x387, 0x387),
    (0x589, 0x589), (0x5be, 0x5be), (0x60c, 0x60c), (0x61b, 0x61b), (0x61f, 0x61f), (0x66a, 0x66a), (0x964, 0x965), (0x2016, 0x2017), (0x201a, 0x201a),
    (0x201e, 0x2023), (0x2030, 0x2038), (0x203b, 0x203b), (0x203e, 0x2042), (0x2070, 0x2070), (0x2074, 0x207e), (0x2080, 0x208e), (0x2100, 0x214f),
    (0x2155, 0x215e), (0x2190, 0x2bff), (0x3001, 0x3002), (0x3012, 0x3012), (0x30fb, 0x30fb), (0xff01, 0xff0f), (0xff1a, 0xff20), (0xff3b, 0xff40),
    (0xff5b, 0xff65), (0xffe0, 0xffe1), (0xffe5, 0xffe6)]
MARKS = [(0x2c2, 0x36f), (0x483, 0x487), (0x591, 0x5c7), (0x610, 0x61a), (0x64b, 0x670), (0x6d6, 0x6ed), (0x900, 0xecd)]     # as letters
PUNCT = set("'' ' `` ` . ? ! , : - -- ... ;".split())

def plain(c):
    o = ord(c); within = lambda table: any(a <= o <= b for a, b in table)
    if c in QUOTES: return QUOTES[c]
    if c in INSTEAD or within(KEPT): return "\x82"
    if c in DROPPED: return '"'
    if o < 128: return c
    if c in HYPHENS: return "_"
    if o > 0xffff or c.isspace(): return " "
    return "\x80" if c.isalpha() or within(MARKS) else "0" if c.isdecimal() else " "

def words(text):
    text = text.replace("\u00ad", "")
    for a, b in ENTITIES: text = re.sub(a, b, text, flags=re.I)
    seen = "".join(map(plain, text)); at = 0; out = []
    while at < len(text):
        if seen[at].isspace(): at += 1; continue
        best, length, rule = 0, 1, None
        for name, pattern, more, after in RULES:
            m = pattern.match(seen, at)
            if m and (after is None or after.match(seen, m.end())) and m.end() - at + more > best: best, length, rule = m.end() - at + more, m.end(pattern.groups) - at, name
        token = text[at:at + length]
        if rule == "split": length = SPLIT[token.lower()]; token = token[:length]      # the rest is read again
        elif rule is None: token = INSTEAD.get(token, BRACKET.get(token, "" if seen[at] in "\"\x84\x83\x86\x87" else token))
        elif token[0] in HYPHENS: token = ""
        elif rule in ("n't", "clitic", "run"): token = "".join(STRAIGHT.get(c, c) for c in token)
        else: token = "" if rule == "gap" else token.replace("(", "-lrb-").replace(")", "-rrb-") if rule in ("phone", "smile", "face") else token
        out += [w for w in token.lower().split() if w not in PUNCT]
        at += length
    return out

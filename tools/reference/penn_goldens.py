"""Words and CIDEr scores of pycocoevalcap, for tests/goldens/penn.json and cider.json: python penn_goldens.py (needs Java)."""
import json, random, sys
from penn_rows import TOK, W, rows_random
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocoevalcap.cider.cider import Cider
import penn_words as ptb
GUARD = "zz"      # a caption's words depend on what the next line starts with ("no." before a digit): a word between them
def tool(texts):
    rows = {}
    for i, t in enumerate(texts): rows[2 * i] = [{"caption": t}]; rows[2 * i + 1] = [{"caption": GUARD}]
    got = PTBTokenizer().tokenize(rows)
    return [got[2 * i][0].split() for i in range(len(texts))]      # split() as CIDEr does

HAND = """a black/white cat and/or dog w/ he/she w/o 24/7
gonna gotta wanna lemme gimme cannot Cannot 'tis 'Twas d'ye y'all c'mon ma'am o'clock cap'n li'l ol' e'er
it's 3:30pm in the U.S. The man left at 5 a.m. sharp, etc.
a b & w photo, at&t AT&T R&B r&b A+B rock&roll
'50s '90 '90s 50's 1990's '5 '555 '90.
don't DON'T can't won't isn't x'n't café's caf\u00e9n't n't 'n' rock'n'roll
mr. smith, Mrs. Jones and dr. who on st. john st. at no. 5 (No. five), fig. 2, p. 3, vs. vs
J. R. Smith j.r.r. tolkien R. The cat U.S.A. u.s.-based non-u.s. ph.d. Ph.D. M.Sc.
1,000 3.5 .5 -5 +5 1/2 3 1/2 3-1/2 1/2-3 10% $5 €5 £5 5¢ ¥5 US$5 us$5 1st 2nd 12:30:15 1.2.3 -.5 5.5x 2x4
(555) 123-4567 555-123-4567 +1 555 123 4567 555.123.4567 12/25/2010 1-2-99 2010 2011 2012
t-shirt -- - – — --- ----- black-and-white man-- man–eating x—y semi- -end 1,000-pound a.b-c d'art-x
wait... wait.... . . . … .. and…so !!! ?! ?? ! ? hi!there ok?yes dog.The cat.dog, x.,y
"hello" ``hello'' 'hello' ‘hi’ “hi” «hi» ‹hi› `hi` “” dogs' dogs’ don’t ’90s ’em ‘tis ’sx
a@b.com <a@b.c> http://foo.com/a?b=c. https://x www.foo.com foo.com/bar foo.com/b file.txt 1.txt 1.com a_b.com
#tag #tag1 #1 ##x @user_name @1 @_ @@ 2@5
:) :-) ;) :D :( =) <3 </3 ^_^ (^_^) (-_-) >_< T_T :'( :)a 8) :p. (x-x)
( ) [ ] { } < > <b>bold</b> <br/> <a href="x y"> <p class=x> a<b <- -> << >> <!-- x y --> <?x?>
* ** *** _ __ a_b _a_ a__b ~ ^ | || = == + ++ C++ c++ g++ C# c# \\ \\* a\\/b % $ $$ A$ ABC$
café naïve soft\u00adhyphen 北京 テスト 한국어 привет हिन्दी 😀 a😀b ❤️ 90° 5°C 3×4 ÷ ± m² ™ ® © • § ½ 2½ ⅔ 。 、 ① ★
non\u00a0breaking thin\u2009space a‐b a‑b ‑ zero\u200bwidth e\u0301t\u0113
&amp; AT&amp;T &lt;b&gt; &quot;x&quot; don&apos;t a&nbsp;b &mdash; &#39; &copy; &
etc.ab etc.-x etc.a mr.smith mr.-x jan.5 no.5 no.x az. Az. la. La. mass. Mass. pty. Pty. PTY. mfg. MFG.
a/b/c/d a-b/c-d café/bar 1/2/3/4 don't/x x/don't a//b
o'o do'em do'n O'Neil d'5 l'eau j'ai Q'abc I'abc Y'abc aa'N ab'c d's l'll x'mas""".split("\n")

def texts():
    r = random.Random(4); out = list(HAND)
    toks = list(dict.fromkeys(TOK)); r.shuffle(toks)
    for i in range(0, len(toks), 5): out.append("a " + " ".join(toks[i:i + 5]))
    for i in range(0, len(toks), 9): out.append(" ".join(t + r.choice([".", ",", "'s", "!", "?", ")", " The", "-x", ":", "..."]) for t in toks[i:i + 3]))
    return out + rows_random(400, 77)

def main():
    T = [t for t in dict.fromkeys(texts()) if t.strip()]
    got = tool(T); differ = [(t, g, ptb.words(t)) for t, g in zip(T, got) if ptb.words(t) != g]
    for t, g, p in differ: print("left out:", repr(t), g, p)
    rows = [[t, g] for t, g in zip(T, got) if ptb.words(t) == g]
    size, keep = 0, []
    for row in rows:
        s = len(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()) + 2
        if size + s > 59000 or len(keep) >= 440: break
        size += s; keep.append(row)
    open("../../tests/goldens/penn.json", "w").write("[\n" + ",\n".join(json.dumps(k, ensure_ascii=False, separators=(",", ":")) for k in keep) + "\n]\n")
    print(len(keep), "rows", size, "bytes;", len(differ), "left out of", len(T))

    r = random.Random(9); cases = []
    def caption(base=None):
        words = list(base) if base else [r.choice(TOK) if r.random() < .35 else r.choice(W + ["pizza", "cat", "black", "white", "grass", "holding", "ball"]) for _ in range(r.randint(4, 12))]
        for _ in range(r.randint(0, 3)):
            k = r.randrange(len(words) + 1); m = r.random()
            if m < .3 and len(words) > 2: words.pop(min(k, len(words) - 1))
            elif m < .7: words.insert(k, r.choice(W))
            else: words.insert(k, r.choice(TOK))
        return words
    fine = lambda text: ptb.words(text) == tool_of.get(text, ptb.words(text))
    plan = []
    for i in range(200):
        base = caption(); refs = [" ".join(caption(base)) for _ in range(1 + i % 5)]; answer = " ".join(caption(base))
        if i % 23 == 0: answer = ""
        if i % 29 == 1: answer = refs[0]
        if i % 31 == 2: refs[-1] = refs[-1].replace(" ", "\n", 1)
        if i % 37 == 3: answer = "..."
        if i % 41 == 4: refs[0] = "!"
        if i % 43 == 5: answer = "a a a a a the the"
        plan.append((answer, refs))
    flat = list(dict.fromkeys(t for a, rs in plan for t in (a, *rs) if t.strip()))
    tool_of = dict(zip(flat, tool(flat)))
    plan = [(a, rs) for a, rs in plan if fine(a) and all(map(fine, rs))][:180]
    gts = PTBTokenizer().tokenize({i: [{"caption": t} for t in rs] for i, (a, rs) in enumerate(plan)})
    res = PTBTokenizer().tokenize({i: [{"caption": a}] for i, (a, rs) in enumerate(plan)})
    whole = all(gts[i][k].split() == ptb.words(t.replace("\n", " ")) for i, (a, rs) in enumerate(plan) for k, t in enumerate(rs)) and all(res[i][0].split() == ptb.words(a) for i, (a, rs) in enumerate(plan))
    total, scores = Cider().compute_score(gts, res)
    out = {"score": float(total), "rows": [{"answer": a, "references": rs, "score": float(s)} for (a, rs), s in zip(plan, scores)]}
    open("../../tests/goldens/cider.json", "w").write('{"score":%r,"rows":[\n' % out["score"] + ",\n".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) for x in out["rows"]) + "\n]}\n")
    print(len(plan), "rows, CIDEr", total, "tokens all equal in the real batch:", whole, "scores", min(scores), max(scores))
main()

import random,itertools
random.seed(5)
nouns="dog cat man woman café bus U.S. pizza T-shirt skateboard child AT&T R&B o'clock jack-o'-lantern Mr. Smith Dr. Jones St. etc. b & w black/white and/or he/she".split(' ')
TOK="""'s 'S 'll n't can't won't cannot gonna wanna gimme lemme gotta d'ye y'all ain't I'm he'd she'll they've who're dog's dogs' men's James' o'clock O'Neil rock'n'roll rock 'n' roll 'em 'til 'till 'cause 'tis 'twas 'n c'mon ma'am ne'er cap'n ol' li'l nothin' jack-o'-lantern x-mas l'eau d'art j'ai more'n y'know c'est
mr. Mr. mrs. ms. dr. Dr. st. St. u.s. U.S. u.s.a. U.S.A. usa e.g. i.e. etc. etc a.m. p.m. a.m A.M. jan. Feb. mar. apr. Sept. oct. nov. dec. mon. Tues. wed. thurs. fri. sat. sun. no. No. nos. fig. pp. p. vs. vs inc. Inc. ltd. co. corp. jr. sr. Jr. ave. blvd. rd. ft. in. lb. lbs. oz. min. sec. hr. hrs. approx. ph.d. Ph.D. m.d. b.c. a.d. d.c. u.k. u.n. n.y. l.a. calif. mass. tex. ore. prof. gen. col. sgt. rev. hon. pres. gov. sen. rep. tel. ext. dept. est. bros. mt. j. r. J. R. J.R. j.r.r. R.E.M. s.o.s. D.J. T.V. t.v.
1,000 1,000,000 3.5 .5 0.5 -5 +5 1/2 3/4 10% 100% $5 €5 £5 ¥5 5¢ $1.50 $1,000 1st 2nd 3rd 4th 21st 50's '50s 50s 1990s '90 '90s 1990's 2010 555-1234 (555) 555-123-4567 12/25/2010 1/2/99 2010-12-25 3:30 3:30pm 3:30am 10:00 12:34:56 12-34 5-6 3x4 2x 4x4 5k 5km 5ft 5ft. 5'6" 5' 6" 1-2-3 1. 2) a) #1 no.1 1-1/2 1½ ½ 2½ 7-up 9-11 9/11 24/7 007 3d 3-d 2-3ft 100's 1.2.3 v1.0 mp3 h2o 20s 20-30 5.5% 5:1 16:9 1080p 5x7 8.5x11 -5.5 5- 5+ +1 1+1 1=1 5*5 100,00 ,5 5, 5. 5.. 5... 1:a
t-shirt black-and-white x-ray e-mail - -- --- ---- ----- – — man-eating mid-air semi- -end two-year-old 10-year-old 5-foot u.s.-based non-u.s. pre-1990 1990-2000 a-b half-eaten self- --x x-- well-
a/b and/or w/ w/o he/she n/a km/h / // black/white/red red/white/blue/green 1/2/3/4 cat/dog. tv/dvd /r/pics c/o p/m man/woman's dog-cat/x x/y-z
at&t AT&T b&w B&W b & w & && &amp; R&B r&b H&M h&m m&ms M&M's M&Ms q&a Q&A D&D black&white rock&roll A&W a&w S&P
"hello" ``hello'' ''hello'' 'hello' ‘hi’ “hi” «hi» `hi` "'hi'" "hi "stop" 'stop' hi" said" "a ' '' " `` ` ´ ’ ’s ‘ “ ” n’t don’t it’s ’90s ‘90s dogs’ y’all o’clock ’em “” ′ ″
... .. .... ..... . . . … and... ...and and…and wait...what a..b a.b . .. ! ? !! ??? !!! ?! !? !?! , ; : ,, ;; :: hi! hi!! hi? what?! hi!there ok?yes hello,world hello;world a:b end. end.. end... end.The end.the the.end cat.dog cat,dog ,cat .cat :cat cat: cat; a.b.c ok.. yes,no yes.no
a@b.com me@mail.example.org foo@bar http://www.foo.com http://foo.com/a?b=c&d=e https://x.org/ www.foo.com www.foo.com/bar foo.com foo.com/bar.html foo.org. Foo.NET flickr.com example.co.uk file.txt img_001.jpg IMG_1234.JPG a.py index.html
#tag #tag1 #1 #TagMe #tag_me ##x # @user @user_name @User1 @ @2 @5pm 2@5
:) :-) ;) ;-) :D :-D :( :-( =) :P :p :o) :/ :\\ :| <3 </3 ^_^ -_- (^_^) >_< T_T o_O xD XD :'( :)) (: (-: :-* 8) ): :] >:( <:) :@ ^^ (^^) \\o/ :-/ :3 =D ;D
( ) (a) (a b) [a] [ ] {a} { } <a> < > << >> -> <- => <= >= (1) [1] (s) man(s) (cat) (cat). (u.s.) (a.m.) )( ()[] ([a]) (a/b) (-) (5) (5%) (c) (r) (tm)
<b> </b> <br> <br/> <a href="x"> <i>x</i> <unk> <UNK> <s> </s> <PERSON> <img src='a b'/> <!-- x --> <p class=x> &lt; &gt; &quot; &apos; &nbsp; &#39; &copy;
* ** *** *a* **a** a*b _ __ ___ _a_ a_b a__b __a ~ ~5 ~a ^ a^b | || a|b = == a=b + ++ a+b C++ c++ C# c# g++ \\ a\\b \\n \\* % %5 $ $$ $a a$ US$ us$ US$5 C$5 NZ$ A$AP Ke$ha
café naïve über Zürich Ångström ñandú Éa crème-brûlée façade façade's l'été d'été O'é 北京 日本語 テスト 한국어 привет мир العربية עברית हिन्दी ไทย 東京。 、 「a」 😀 a😀b ❤️ 👨‍👩‍👧 ★ ☆ ♥ ♪ → ← • · ° 5° 5°C 90°F × 3×4 ÷ ± µ ² m² ³ ™ ® © § ¶ ¿ ¡ ¿qué? ¢ £ € ¥ № ½ ¼ ¾ ⅓ ⅔ ⅛ ≤ ≥ ≠ ∞ √ ﬁsh İstanbul ΑΒΓ ΣΑΣ ß ſ Ǆ ① ⅷ a\u0301 e\u0301te\u0301 zero\u200bwidth \u200b \ufeff soft\u00adhy\u00adphen a\u00adb. non\u00a0breaking 3\u00a0½ thin\u2009space a\u3000b ｆｕｌｌ １２３ ！ ？ ＄５ a‐b a‑b a‒b a–b a—b 5–6 5—6 ― a… …a „a“ ‚a‘ ‹a›
USA NASA CEO TV tv DVDs CDs CD's ABC's PhD OK O.K. o.k. I i A THE CAN'T DON'T WON'T CANNOT GONNA IT'S I'LL WE'RE McDonald's MCDONALD'S iPhone iPad's eBay YouTube's JPEG GIFs""".split('\n')
TOK=[t for l in TOK for t in l.split(' ') if t]
W="a the man dog is on with and of in sitting standing The A Two red street table next to near u it".split()
E=["","",".","!","?",",",";",":","...","'s","'",'"',")","-","/"]
def rows_nasty():
    rows=[]
    for t in TOK:
        rows.append(f"a {t} dog"); rows.append(f"the man saw {t}"); rows.append(f"{t} The dog, {t}. A cat")
        rows.append(f"({t}) is {t}"); 
    return rows
def rows_random(n,seed=11):
    r=random.Random(seed); rows=[]
    for _ in range(n):
        k=r.randint(2,9); s=""
        for i in range(k):
            t=r.choice(TOK) if r.random()<.65 else r.choice(W)
            m=r.random()
            if m<.06 and len(t)>1: j=r.randrange(len(t)); t=t[:j]+t[j+1:]
            elif m<.12: j=r.randrange(len(t)+1); t=t[:j]+r.choice(".,'-/&!?\"():; 15aA")+t[j:]
            elif m<.2: t+=r.choice(E)
            s+=t+("" if r.random()<.12 else " ")
        s=s.strip()
        if s: rows.append(s)
    return rows

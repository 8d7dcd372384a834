from h import *
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from tokenizers import Tokenizer
sys.path.insert(0,"/work/main/tools/reference")
USED=1793
class Watch(LogitsProcessor):
    """Masks the rows that belong to no token (Gemmule never chooses them) and keeps the gap between best and second."""
    def __init__(s): s.gaps=[]
    def __call__(s, i, x):
        x=x.clone(); x[:,USED:]=-float("inf"); t=x[0].topk(2).values; s.gaps.append(float(t[0]-t[1])); return x
def inp(folder, size, patch, pic, prompt):
    tok=Tokenizer.from_file(str(folder/"tokenizer.json"))
    ids=tok.encode("<image>"*((size//patch)**2)+f"<bos>{prompt}\n",add_special_tokens=False).ids
    px=SiglipImageProcessorPil(size={"height":size,"width":size})(images=[Image.open(pic).convert("RGB")],return_tensors="pt")["pixel_values"]
    ids=torch.tensor([ids])
    return dict(input_ids=ids,attention_mask=torch.ones_like(ids),token_type_ids=torch.zeros_like(ids),pixel_values=px)
CASES=[
 ("tests/goldens/first-f32","tests/goldens/pictures/photo.jpg","detect cat ; dog\n\n  two  spaces",42,14),
 ("tests/goldens/window-f32","tests/goldens/pictures/photo.jpg","answer en où est le café à Zürich? 日本語 😀🚀",56,14),
 ("models/easy-vqa","examples/pictures/shape.png","detect circle",70,14),
 ("models/easy-vqa","examples/pictures/shape.png","what color is the shape?",70,14),
]
def configs(ids, free):
    """free: what greedy decoding gives without any of it; ids: the prompt"""
    f=free; a=f[0]; n=len(ids); b=next((t for t in f if t!=a),None); last=ids[-1]
    c=[{}, 
     {"repetition_penalty":1.05},{"repetition_penalty":1.2},{"repetition_penalty":1.5},{"repetition_penalty":3.0},{"repetition_penalty":0.8},{"repetition_penalty":1.0},
     {"encoder_repetition_penalty":1.3},{"encoder_repetition_penalty":0.7},{"encoder_repetition_penalty":1.3,"repetition_penalty":1.4},
     {"no_repeat_ngram_size":1},{"no_repeat_ngram_size":2},{"no_repeat_ngram_size":3},{"no_repeat_ngram_size":4},{"no_repeat_ngram_size":100},
     {"encoder_no_repeat_ngram_size":1},{"encoder_no_repeat_ngram_size":2},{"encoder_no_repeat_ngram_size":3},
     {"suppress_tokens":[a]},{"suppress_tokens":[a,99999,-5]},{"suppress_tokens":[]},{"begin_suppress_tokens":[a]},{"begin_suppress_tokens":[a],"suppress_tokens":[f[-1]]},
     {"bad_words_ids":[[a]]},{"bad_words_ids":[[last,a]]},{"bad_words_ids":[[a,f[1]]]},{"bad_words_ids":[[a,f[1],f[2]],[1]]},{"bad_words_ids":[[],[a,f[1]],[7]*200]},{"bad_words_ids":[[last,f[0],f[1]],[f[1],f[2]]]},
     {"sequence_bias":[[[a],-3.0]]},{"sequence_bias":[[[a],-1e4],[[409],2.5]]},{"sequence_bias":[[[last,a],-20.0],[[445],1.0]]},{"sequence_bias":[[[a,f[1]],-10.0],[[f[1],f[2]],-10.0],[[393],40.0]]},{"sequence_bias":[[[a],-5.0],[[a],0.5]]},
     {"eos_token_id":a},{"eos_token_id":[1,f[1]]},{"eos_token_id":[1,f[3]],"min_new_tokens":3},{"eos_token_id":a,"min_new_tokens":5},{"eos_token_id":a,"min_length":5},{"eos_token_id":a,"min_length":n},{"eos_token_id":a,"min_length":n+1},{"eos_token_id":a,"min_length":n+5},{"eos_token_id":a,"min_length":n+5,"min_new_tokens":2},{"eos_token_id":[1,a,f[2]],"min_new_tokens":8},{"eos_token_id":None},{"eos_token_id":[]},{"eos_token_id":[a,-1,99999]},
     {"min_new_tokens":10},{"min_new_tokens":1000},
     {"forced_bos_token_id":7},{"forced_eos_token_id":1},{"forced_eos_token_id":[9,7]},{"forced_eos_token_id":7,"suppress_tokens":[7,8],"_error":True},{"forced_eos_token_id":7,"min_new_tokens":1000,"eos_token_id":[7]},
     {"exponential_decay_length_penalty":[2,1.3]},{"exponential_decay_length_penalty":[0,1.05],"eos_token_id":[1,7]},{"exponential_decay_length_penalty":[4,2.0],"min_new_tokens":8},
     {"renormalize_logits":True,"repetition_penalty":1.2},{"remove_invalid_values":True,"suppress_tokens":[a]},
     {"repetition_penalty":1.2,"no_repeat_ngram_size":3,"suppress_tokens":[a],"min_new_tokens":12},
     {"sequence_bias":[[[a],-4.0]],"repetition_penalty":1.3},{"sequence_bias":[[[393],30.0]],"repetition_penalty":2.0},{"bad_words_ids":[[a,a]],"no_repeat_ngram_size":4,"repetition_penalty":1.1,"encoder_repetition_penalty":1.1},
     {"max_new_tokens":3},{"max_length":5},{"temperature":5.0,"top_k":3,"top_p":0.1,"min_p":0.5,"typical_p":0.2,"epsilon_cutoff":0.1,"eta_cutoff":0.1},{"length_penalty":-3.0,"early_stopping":True},{"num_beam_groups":2,"diversity_penalty":3.0,"low_memory":True},{"pad_token_id":5,"bos_token_id":7,"decoder_start_token_id":9},{"cache_implementation":"hybrid"},{"guidance_scale":1.0},
    ]
    return c
out=[]
for folder,pic,prompt,size,patch in CASES:
    path=Path("/work/main")/folder
    m=PaliGemmaForConditionalGeneration.from_pretrained(path,dtype=torch.float32).eval()
    x=inp(path,size,patch,Path("/work/main")/pic,prompt); ids=x["input_ids"][0].tolist()
    base=json.loads((path/"generation_config.json").read_text()); base={k:base[k] for k in ("bos_token_id","eos_token_id","pad_token_id")}
    import tempfile
    def go(conf,tokens=24):
        d=tempfile.mkdtemp(dir="/work/scratch/hf/t"); merged={**base,**conf}; merged.pop("_error",None)
        (Path(d)/"generation_config.json").write_text(json.dumps(merged))
        from transformers import GenerationConfig
        try:
            m.generation_config=GenerationConfig.from_pretrained(d); w=Watch()
            g=m.generate(**x,max_new_tokens=tokens,logits_processor=LogitsProcessorList([w]))[0,len(ids):].tolist()
            return merged,g,min(w.gaps)
        except Exception as e: return merged,f"{type(e).__name__}: {str(e)[:150]}",None
        finally: shutil.rmtree(d)
    _,free,_=go({"eos_token_id":None})
    entry=dict(checkpoint=folder,picture=pic,prompt=prompt,prompt_tokens=len(ids),max_new_tokens=24,used_vocabulary=USED,configs=[])
    for c in configs(ids,free):
        merged,g,gap=go(c)
        if isinstance(g,str): print(folder,c,g); continue
        e=dict(generation_config=merged,tokens=g,smallest_gap=round(gap,4) if gap!=float("inf") else None)
        if gap<0.005 and not (gap==0 and "forced_eos_token_id" in c): print("close",folder,c,gap,g); continue
        entry["configs"].append(e)
    print(folder,prompt[:20],len(entry["configs"]),"free",free[:8],len({tuple(e["tokens"]) for e in entry["configs"]}),"distinct")
    out.append(entry)
note="Greedy ids of transformers 5.23.0 in float32 (generate with max_new_tokens=24, generation_config.json as given, rows from used_vocabulary on masked), pixels by the PIL backend, prompt ids <image>*n + <bos>prompt\\n. smallest_gap: least distance of the best processed score to the second over the steps (0: forced_eos_token_id with two tokens, the lower id wins)."
text=json.dumps({"note":note,"cases":out},ensure_ascii=False)
import re
text=json.dumps({"note":note,"cases":[{**{k:v for k,v in e.items() if k!="configs"},"configs":f"@@{i}"} for i,e in enumerate(out)]},indent=1,ensure_ascii=False,allow_nan=False)
for i,e in enumerate(out): text=text.replace(f'"@@{i}"',"[\n"+",\n".join("   "+json.dumps(c,allow_nan=False) for c in e["configs"])+"\n  ]")
json.loads(text); open("generation_goldens.json","w").write(text+"\n")

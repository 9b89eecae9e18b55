#!/bin/sh
# Fills corpus/ with the fixtures of the tests, the larger ones left out.
set -e
cd "$(dirname "$0")"
fixtures=../crates/xmore-clip/tests/fixtures
mkdir -p corpus/torch_file corpus/safetensors_file corpus/shard_index corpus/config corpus/clip_text corpus/tokenizer_json
cp $fixtures/torch/*.pt $fixtures/torch/*.pth $fixtures/torch/*.bin corpus/torch_file/
cp $fixtures/torch/*.safetensors corpus/safetensors_file/
cp $fixtures/torch/*.index.json corpus/shard_index/
# The headers without their frame, which the target adds.
for file in $fixtures/torch/*.safetensors; do
    tail -c +9 "$file" | tr -d '\000-\010\016-\037\177-\377' | sed 's/}}.*/}}/' > "corpus/safetensors_file/$(basename "$file").header"
done
# The pickles without their archive; the legacy files have none.
for file in $fixtures/torch/*.pt $fixtures/torch/*.bin; do
    if [ "$(head -c 2 "$file")" = PK ]; then
        unzip -p "$file" '*/data.pkl' > "corpus/torch_file/$(basename "$file").pkl"
    fi
done
# Configurations: a byte that says whose, and transformers' two files with a zero byte between them.
for family in vit_gelu vit_quickgelu; do
    { printf 'a'; cat $fixtures/clip/$family/transformers/config.json; printf '\000'
      cat $fixtures/clip/$family/transformers/preprocessor_config.json; } > corpus/config/$family.transformers
    { printf 'b'; cat $fixtures/clip/$family/open_clip/open_clip_config.json; } > corpus/config/$family.open_clip
done
# Configurations of every family in the order of their paths, each behind a byte that says which: whole, with one value changed (the third), and
# an image processor's one level deeper.
mkdir -p corpus/model_config
i=0
for file in $(find $fixtures/clip $fixtures/tiny $fixtures/towers -name open_clip_config.json -o -name config.json -o -name text_config.json \
    -o -name preprocessor_config.json -o -name tokenizer_config.json | LC_ALL=C sort); do
    which="\\$(printf %03o $i)"
    { printf "$which\\000"; cat "$file"; } > "corpus/model_config/$i.whole"
    printf "$which"'\001\0031\000' > "corpus/model_config/$i.changed"
    case $file in
        *preprocessor_config.json)
            { printf "$which\\002"; printf '{"image_processor": '; cat "$file"; printf '}'; } > "corpus/model_config/$i.nested" ;;
    esac
    i=$((i + 1))
done
cp $fixtures/tokenizer/nasty.json corpus/clip_text/
cp $fixtures/tiny/tokenizer.json corpus/tokenizer_json/
# Tokenizer files, each behind a byte that says which it is.
mkdir -p corpus/tokenizer_file
i=0
for file in siglip/spiece.model mt5/spiece.model xlm-model/sentencepiece.bpe.model gemma-model/tokenizer.model bert-vocab/vocab.txt \
    siglip/tokenizer_config.json; do
    { printf "\\00$i"; cat "$fixtures/tokenizer/files/$file"; } > "corpus/tokenizer_file/$i"
    i=$((i + 1))
done
# Sources of pairs. The embeddings begin with a byte that says whose, whole and as a header alone.
sources=../crates/xmore-memory/fixtures/sources
mkdir -p corpus/webdataset_tar corpus/embeddings_npy
cp $sources/*.tar corpus/webdataset_tar/
for file in $sources/embeddings/*_emb/*_0.npy; do
    { printf '\000'; cat "$file"; } > "corpus/embeddings_npy/$(basename "$file")"
    { printf '\001'; head -c 128 "$file" | tail -c +11; } > "corpus/embeddings_npy/$(basename "$file").header"
done
mkdir -p corpus/table_file corpus/parquet_file corpus/json_captions corpus/sidecar
cp $sources/*.parquet corpus/parquet_file/
cp $sources/coco/annotations/*.json corpus/json_captions/
# Tables behind a byte that says which: separators, quotes, encodings, objects.
{ printf '\000'; printf '\357\273\277image_path;caption\r\n0.jpg;"a; ""b"""\r\n1.jpg;caf\351\r\n'; } > corpus/table_file/semicolons
{ printf '\000'; printf 'sep=|\nfile name|alt\n0.jpg|x|\n1.jpg|"open\n2.jpg|y\n'; } > corpus/table_file/sep
{ printf '\001'; printf '\377\376i\000m\000g\000\011\000a\000l\000t\000\012\0000\000.\000j\000p\000g\000\011\000x\000'; } > corpus/table_file/utf16
{ printf '\000'; printf '0.jpg,a dog\n1.jpg,a cat\n'; } > corpus/table_file/headerless
objects='{"file_name": "0.jpg", "text": ["a", "b"]}\n{"file_name": "1\\u00e9.jpg", "text": "c", "n": NaN}\n'
{ printf '\002'; printf "$objects"; } > corpus/table_file/lines
{ printf '\003'; printf '[{"image": "0.jpg", "caption": "a"}, {"image": "1.jpg", "x": {"y": []}}]'; } > corpus/table_file/list
{ printf '\000'; printf 'caf\351\nsecond line\n'; } > corpus/sidecar/text
{ printf '\002'; printf '{"caption": ["a", "b"], "p": NaN}'; } > corpus/sidecar/json
{ printf '\003'; printf 'file_name,text\na.jpg,x\n./a.jpg,y\nb.jpg,z\n'; } > corpus/sidecar/metadata
{ printf '\004'; printf '{"file_name": "a.jpg", "text": "x"}\n'; } > corpus/sidecar/lines
# Files of a memory, each behind a byte that says which it is.
memory=../crates/xmore-memory/fixtures/memory_v1
mkdir -p corpus/memory_file
i=0
for file in xmore_memory.json img_emb/img_emb_0000.npy text_emb/text_emb_0000.npy metadata/metadata_0000.parquet; do
    { printf "\\00$i"; cat "$memory/$file"; } > "corpus/memory_file/$i"
    i=$((i + 1))
done
for i in 0 1 2 3 4 5 6; do
    { printf "\\20$i"; printf '\001\000over'; } > "corpus/memory_file/over$i"
done
# Over the manifest and with the checksum of what it is then.
{ printf '\300'; printf '\002\000"pairs": 41'; } > corpus/memory_file/sealed
# Labels, each behind a byte that says how they are read.
mkdir -p corpus/labels_file
printf '\000# things\nchurch\n"golf ball"\n' > corpus/labels_file/lines
printf '\000{"church": ["a church.", "a {}"], "tench": "a tench"}' > corpus/labels_file/prompts
printf '\000{"id2label": {"1": "b", "0": "a"}, "x": null}' > corpus/labels_file/id2label
printf '\000[["n01440764", "tench"], {"label": "cat", "prompts": ["x"]}]' > corpus/labels_file/list
printf '\000n01440764 tench\nn02102040 springer' > corpus/labels_file/wnids
printf '\001sep=;\nid;label;prompt\n0;cat;a cat\n1;dog;' > corpus/labels_file/csv
printf '\002id\tname\n0\tcat\n1\tdog\n' > corpus/labels_file/tsv
printf '\003cat, "a, b",dog' > corpus/labels_file/typed
printf '\004["cat", {"label": "dog"}]' > corpus/labels_file/sent
# Images of every format, each behind a byte that chooses its name and what becomes of transparency.
mkdir -p corpus/image_file
for file in ../crates/xmore-files/tests/fixtures/images/*.* $fixtures/preprocess/*.*; do
    case $file in
        *.json) ;;
        *.tga) { printf '\001'; cat "$file"; } > "corpus/image_file/$(basename "$file")" ;;
        *) { printf '\002'; cat "$file"; } > "corpus/image_file/$(basename "$file")" ;;
    esac
done

#!/usr/bin/env bash
# Frames with brightness and colour apart and ffmpeg's RGB of them, each pixel taking its colour sample as it is:
# tools/reference/yuv_goldens.sh tests/goldens/yuv
# NAME.raw is the frame as ffmpeg stores it, NAME.rgb its pixels; names are FORMAT-WIDTHxHEIGHT-MATRIX-RANGE.
set -euo pipefail
mkdir -p "$1"
cd "$1"
flags=neighbor+accurate_rnd+full_chroma_int

make() { # format, ffmpeg's name, size, matrix, range
    local name=$1-$3-$4-$5 range=tv
    [ "$5" = limited ] || range=pc
    ffmpeg -v error -y -f lavfi -i testsrc2=size=64x48:rate=1 -frames:v 1 \
        -vf "scale=${3/x/:}:out_color_matrix=$4:out_range=$range" -pix_fmt "$2" -f rawvideo "$name.raw"
    ffmpeg -v error -y -f rawvideo -s "$3" -pix_fmt "$2" -i "$name.raw" \
        -vf "scale=in_color_matrix=$4:in_range=$range:out_range=pc" -sws_flags $flags -pix_fmt rgb24 -f rawvideo "$name.rgb"
}

for matrix in bt601 bt709 bt2020; do
    for range in limited full; do
        make i420 yuv420p 34x20 $matrix $range
    done
done
for pair in nv12=nv12 i422=yuv422p i444=yuv444p yuyv=yuyv422 uyvy=uyvy422; do
    make "${pair%=*}" "${pair#*=}" 34x20 bt709 limited
    make "${pair%=*}" "${pair#*=}" 34x20 bt601 full
done

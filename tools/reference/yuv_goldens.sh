#!/usr/bin/env bash
# Frames with brightness and colour apart and ffmpeg's RGB of them, each pixel taking its colour sample as it is:
# tools/reference/yuv_goldens.sh tests/goldens/yuv
set -euo pipefail
mkdir -p "$1"
cd "$1"
size=96x64
ffmpeg -v error -y -f lavfi -i testsrc2=size=$size:rate=1 -frames:v 1 -pix_fmt yuv420p -f rawvideo i420.raw
raw=(-f rawvideo -s $size)
ffmpeg -v error -y "${raw[@]}" -pix_fmt yuv420p -i i420.raw -pix_fmt nv12 -f rawvideo nv12.raw
ffmpeg -v error -y "${raw[@]}" -pix_fmt yuv420p -i i420.raw -pix_fmt yuyv422 -f rawvideo yuyv.raw
for pair in i420=yuv420p nv12=nv12 yuyv=yuyv422; do
    ffmpeg -v error -y "${raw[@]}" -pix_fmt "${pair#*=}" -i "${pair%=*}.raw" \
        -sws_flags neighbor+accurate_rnd+full_chroma_int -pix_fmt rgb24 -f rawvideo "${pair%=*}.rgb"
done

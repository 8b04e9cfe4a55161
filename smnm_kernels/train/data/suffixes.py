"""Names of the files that are looked at. What a file really is, its content says."""

from __future__ import annotations


def _suffixes(names: str) -> frozenset[str]:
    return frozenset("." + name for name in names.split())


# Containers of moving pictures, most of them with sound, as FFmpeg reads them.
VIDEO = _suffixes(
    "264 265 3g2 3gp amv asf avi bik divx dv evo f4v flv gif h264 h265 hevc ivf m1v m2t m2ts m2v "
    "m4v mj2 mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts mxf nsv nut obu ogm ogv ogx qt rm rmvb "
    "trp ts vob webm wmv wtv y4m"
)
_SOUND = _suffixes(
    "aac ac3 adts aif aifc aiff alac amr ape au awb bwf caf dsf dts eac3 ec3 f4a flac gsm loas m4a "
    "m4b m4r mka mlp mp1 mp2 mp3 mpa mpc mpga oga ogg oma opus qcp ra rf64 snd spx tak thd tta voc "
    "w64 wav wave weba wma wv"
)
AUDIO = _SOUND | VIDEO
IMAGE = _suffixes("avif bmp dib jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp")

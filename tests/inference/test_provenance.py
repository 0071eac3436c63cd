"""The mark in the metadata, checked by reading the XML and EXIF with other code than wrote them."""

import re

import pytest
from PIL import Image

from rtgaze_jax.inference.provenance import SOURCE_TYPE, Edit, mark_exif, mark_xmp

EDIT = Edit("Eyes were moved & <changed>.")
CAMERA = b"""<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" dc:format="image/jpeg"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"/>
<rdf:Description rdf:about="" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<e:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture</e:DigitalSourceType></rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""


@pytest.mark.parametrize("before", [b"", CAMERA, b"\xff\xfe broken", CAMERA[:200]])
def test_xmp_has_exactly_one_source_type(before):
    text = mark_xmp(before, EDIT).decode()
    assert text.startswith("<?xpacket begin=")
    assert text.count(SOURCE_TYPE) == 1
    assert "digitalCapture" not in text
    assert len(re.findall(r"DigitalSourceType", text)) == 1
    assert "Eyes were moved &amp; &lt;changed&gt;." in text


def test_other_xmp_is_kept():
    assert b"image/jpeg" in mark_xmp(CAMERA, EDIT)


def test_marking_twice_changes_nothing_more():
    once = mark_xmp(CAMERA, EDIT)
    assert mark_xmp(once, EDIT).count(b"DigitalSourceType") == 1


def test_entities_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
    assert b"aaaa" not in mark_xmp(bomb, EDIT)


def test_exif():
    before = Image.Exif()
    before[0x010E] = "Holiday"
    before[0x010F] = "Maker"
    marked = Image.Exif()
    marked.load(mark_exif(before.tobytes(), EDIT))
    assert marked[0x010E] == f"Holiday [{EDIT.sentence}]"
    assert marked[0x010F] == "Maker"


@pytest.mark.parametrize("before", [b"", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff garbage", b"nonsense"])
def test_exif_from_nothing_or_nonsense(before):
    marked = Image.Exif()
    marked.load(mark_exif(before, EDIT))
    assert marked[0x010E] == EDIT.sentence


def test_exif_too_long_for_a_jpeg_is_cut_to_the_mark():
    before = Image.Exif()
    before[0x010F] = "x" * 70_000
    written = mark_exif(before.tobytes(), EDIT)
    assert len(written) < 1000
    assert EDIT.sentence.encode() in written

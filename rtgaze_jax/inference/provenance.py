"""Says in a photo's own metadata that its gaze was changed by AI.

XMP gets IPTC's digital source type "composite with trained algorithmic media", the term for photographs that were
edited with generative AI (https://cv.iptc.org/newscodes/digitalsourcetype/); EXIF gets it in words, for readers that
know no XMP.
"""

import dataclasses
import xml.etree.ElementTree as ET

from PIL import Image

from rtgaze_jax import __version__

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_SOURCE_TYPE = f"{{{_IPTC}}}DigitalSourceType"
_CREATOR_TOOL = f"{{{_XMP}}}CreatorTool"
_INSTRUCTIONS = f"{{{_PHOTOSHOP}}}Instructions"
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags
_SOFTWARE_NAME = f"rtgaze-jax {__version__}"
_MAX_EXIF = 60_000  # a JPEG segment holds 65,533 bytes

for _prefix, _uri in (("rdf", _RDF), ("x", _META), ("Iptc4xmpExt", _IPTC), ("xmp", _XMP), ("photoshop", _PHOTOSHOP)):
    ET.register_namespace(_prefix, _uri)


@dataclasses.dataclass(frozen=True)
class Edit:
    """What was done to a photo, in one English sentence."""

    sentence: str = "The gaze direction of a face in this image was changed by AI."


def mark_exif(exif: bytes, edit: Edit) -> bytes:
    """EXIF bytes (possibly empty) with the edit added to ImageDescription, and Software set."""
    marked = Image.Exif()
    try:
        marked.load(exif)
        before = str(marked.get(_DESCRIPTION, "")).strip("\x00 ")
        marked[_DESCRIPTION] = f"{before} [{edit.sentence}]" if before else edit.sentence
        marked[_SOFTWARE] = _SOFTWARE_NAME
        written = marked.tobytes()
        if len(written) <= _MAX_EXIF:
            return written
    except Exception:  # EXIF in the wild is often broken; the mark matters more than the rest
        pass
    marked = Image.Exif()
    marked[_DESCRIPTION] = edit.sentence
    marked[_SOFTWARE] = _SOFTWARE_NAME
    return marked.tobytes()


def _existing(xmp: bytes) -> ET.Element | None:
    """The rdf:RDF element of an XMP packet, or None where there is none that can be read safely."""
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:  # no honest XMP has them; they can expand without bound
        return None
    try:
        root = ET.fromstring(xmp.strip(b"\x00 \n\r\t"))
    except ET.ParseError:
        return None
    return root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")


def mark_xmp(xmp: bytes, edit: Edit) -> bytes:
    """An XMP packet (possibly empty) with IPTC's digital source type set to AI-edited, whatever it said before."""
    rdf = _existing(xmp) if xmp else None
    if rdf is None:
        rdf = ET.Element(f"{{{_RDF}}}RDF")
    marks = {_SOURCE_TYPE: SOURCE_TYPE, _CREATOR_TOOL: _SOFTWARE_NAME, _INSTRUCTIONS: edit.sentence}
    for description in rdf:
        for name in marks:
            description.attrib.pop(name, None)
            for child in description.findall(name):
                description.remove(child)
    ET.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""} | marks)
    root = ET.Element(f"{{{_META}}}xmpmeta")
    root.append(rdf)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{body}<?xpacket end="w"?>'.encode()


def source_type(path: str) -> str | None:
    """IPTC's digital source type that an image file declares in its XMP, or None."""
    with Image.open(path) as image:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    rdf = _existing(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else None
    for description in rdf if rdf is not None else ():
        value = description.get(_SOURCE_TYPE) or description.findtext(_SOURCE_TYPE)
        if value:
            return value
    return None

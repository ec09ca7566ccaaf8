"""Color profiles: the stored pixels are sRGB, computed from the profile's definition."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataprep.color_profiles import needs_conversion
from dataprep.images import store_image
from tests.dataprep.small_images import RULES, encoded, gradient, shown

P3_TO_XYZ = np.array(  # columns red, green, blue, adapted to D50
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def display_p3(gamma: float = 2.2) -> bytes:
    """An ICC profile (version 2) with the primaries of Display P3 and a plain gamma curve."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    name = b"Wide gamut\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{b"rgb"[i : i + 1] + b"XYZ": xyz(P3_TO_XYZ[:, i]) for i in range(3)},
        **{b"rgb"[i : i + 1] + b"TRC": curve for i in range(3)},
    }
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4x", size) + b"\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("side", [200, 300])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_display_p3_is_converted_to_srgb(form, side):
    color = np.array([180, 90, 60])
    pixels = np.full((side, side, 3), color, np.uint8)
    data = encoded(pixels, form, icc_profile=display_p3(), quality=95)
    linear = np.linalg.solve(SRGB_TO_XYZ, P3_TO_XYZ @ (color / 255) ** 2.2)
    expected = 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 0)
    assert np.abs(expected - color).max() > 8
    assert np.abs(shown(data).mean((0, 1)) - expected).max() < 3
    assert b"ICC_PROFILE" not in store_image(data, RULES).jpeg


@pytest.mark.parametrize("form", ["TIFF", "AVIF", "palette PNG", "RGBA PNG"])
def test_display_p3_is_converted_in_every_format(form):
    image = Image.new("RGB", (96, 64), (180, 90, 60))
    if form == "palette PNG":
        image = image.quantize(4)
    if form == "RGBA PNG":
        image = image.convert("RGBA")
    plain = shown(encoded(image, form.split()[-1], quality=95)).mean((0, 1))
    profiled = encoded(image, form.split()[-1], quality=95, icc_profile=display_p3())
    expected = shown(encoded(image.convert("RGB"), "PNG", icc_profile=display_p3())).mean((0, 1))
    found = shown(profiled).mean((0, 1))
    assert np.abs(found - expected).max() < 4 and np.abs(found - plain).max() > 6


def test_a_profile_counts_by_its_colors_not_by_its_name():
    linear = display_p3(gamma=1.0).replace(b"Wide gamut", b"sRGB alike")
    assert shown(encoded(gradient(), "PNG", icc_profile=linear)).mean() > gradient().mean() + 20
    assert needs_conversion(display_p3()) and not needs_conversion(b"nonsense")
    assert not needs_conversion(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_rgb_colors_in_an_image_of_other_colors_is_ignored(mode):
    image = Image.fromarray(gradient()).convert(mode)
    with_profile = encoded(image, "JPEG", icc_profile=display_p3(), quality=95)
    assert np.array_equal(shown(with_profile), shown(encoded(image, "JPEG", quality=95)))


def test_an_srgb_profile_leaves_the_bytes_of_a_jpeg_alone():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = profile.replace(b"s\0R\0G\0B", b"x\0Y\0Z\0W")
    for each in (profile, renamed):
        data = encoded(gradient(), "JPEG", icc_profile=each)
        assert store_image(data, RULES).jpeg == data

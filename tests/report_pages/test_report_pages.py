import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jinja2
import numpy as np
import pytest

from report_pages import Line, Plot, beside, embedded_image, filled, headline, labeled, shrunk, spread, stacked, svg


def gray(level, height=30, width=40):
    return np.full((height, width, 3), level, np.uint8)


def test_pictures_stand_side_by_side_and_above_each_other():
    assert beside([gray(0), gray(200, 60, 40)]).shape == (30, 40 + 4 + 20, 3)
    row = beside([gray(0), gray(200, 60, 40)], scaled=False)
    assert row.shape == (60, 40 + 4 + 40, 3)
    assert (row[:30, :40] == 0).all()
    assert (row[30:, :44] == 255).all()
    assert (row[:, 44:] == 200).all()
    column = stacked([gray(0), gray(9, 10, 50)], gap_px=6)
    assert column.shape == (30 + 6 + 10, 50, 3)
    assert (column[36:] == 9).all()
    assert (column[30:36] == 255).all()


def test_pictures_are_shrunk_and_never_enlarged():
    assert shrunk(gray(5, 300, 400), 100).shape == (75, 100, 3)
    assert shrunk(gray(5), 100).shape == (30, 40, 3)


def test_names_are_written_in_one_line_whatever_they_hold():
    assert (labeled(gray(0, 60, 80), "a label")[30:] > 100).any()
    # A photo's name may hold a line break, and surrogates where its bytes are no text.
    assert (labeled(gray(0, 60, 80), "two\nlines \udcff")[30:] > 100).any()
    assert headline("a\nb", 50).shape == (22, 50, 3)


def test_plots_are_valid_svg_with_their_values():
    line = Line(name="a & b", color="#123456", points=[(0, 1.0), (50, float("nan")), (100, 3.0)])
    plots = [Plot(title="PSNR <dB>", lines=[line], marks=[25]), Plot(title="nothing", lines=[])]
    text = svg(plots)
    assert text == svg(plots)
    root = ElementTree.fromstring(text)
    words = {(element.text or "").strip() for element in root.iter()}
    assert {"PSNR <dB>", "a & b", "nothing", "no measurements", "1.00", "3.00", "0", "100"} <= words
    path, _legend = [
        e.attrib["d"]
        for e in root.iter()
        if "stroke: #123456" in e.attrib.get("style", "") and "L" in e.attrib.get("d", "")
    ]
    (x0, y0), (x1, y1) = [tuple(map(float, place.split())) for place in re.findall(r"[ML] ([\d. ]+)", path)]
    assert x0 < x1
    assert y0 > y1  # Up is smaller in SVG.
    assert "nan" not in svg([Plot(title="flat", lines=[Line(name="", color="red", points=[(5, 2.0)])])])


def test_pages_hold_what_they_show_and_escape_the_rest(tmp_path: Path):
    template = tmp_path / "own.html"
    template.write_text(
        '{% extends "page.html" %}{% from "tables.html" import pictures, table %}'
        '{% block content %}{{ pictures(("a",), [[(picture, "<w>")]]) }}{{ table("numbers", ("b",), [["<c>"]]) }}'
        "{% endblock %}"
    )
    picture = embedded_image(gray(7, 900, 1200), '"<photo>')
    page = filled(template, title="<t>", picture=picture, settings={"a": "<b>"})
    assert "max-width" in page
    assert 'alt="&#34;&lt;photo&gt;" src="data:image/jpeg;base64,' in page
    assert all(f"&lt;{letter}&gt;" in page for letter in "bctw")
    assert not re.search(r'src="(?!data:)', page)
    with pytest.raises(jinja2.UndefinedError, match="picture"):
        filled(template, title="t")


def test_some_of_many_are_evenly_spread():
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 3) == [0, 4, 9]
    assert spread(0, 3) == []

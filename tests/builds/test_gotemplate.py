from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builds.evaluate.errors import Failed
from builds.evaluate.gotemplate import render

DATA: dict[str, Any] = {
    "s": "hello",
    "n": 3,
    "f": 1.5,
    "yes": True,
    "no": False,
    "nil": None,
    "empty": "",
    "list": ["a", "b", "c"],
    "map": {"b": 2, "a": 1, "deep": {"x": "y"}},
}


def made(source: str) -> str:
    return render(source, DATA, 50_000, 1_000_000)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # text, trimming, comments
        ("plain {x} text", "plain {x} text"),
        ("a {{- .s -}} b", "ahellob"),
        ("a {{- /* note */ -}} b", "ab"),
        ("a {{/* note */}} b", "a  b"),
        ("{{-3}}", "-3"),
        # values
        (
            "{{.s}} {{ .n }} {{.f}} {{.yes}} {{.nil}} {{.gone}}",
            "hello 3 1.5 true <no value> <no value>",
        ),
        ("{{.list}} {{.map.deep.x}} {{.map.deep}} {{$.s}}", "[a b c] y map[x:y] hello"),
        (
            "{{ `raw \\n` }} {{ \"q\\tt\" }} {{ 'a' }} {{ 0x1F }} {{ 1e3 }} {{ true }}",
            "raw \\n q\tt 97 31 1000 true",
        ),
        ("{{ (index .list 1) }} {{ (.map).a }}", "b 1"),
        # pipes and variables
        ('{{ .s | upper | printf "%s-%s" "x" }}', "x-HELLO"),
        ("{{ $x := .n }}{{ $x }}{{ $x = 4 }}{{ $x }}", "34"),
        ("{{ $x := 1 }}{{ if .yes }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}", "32"),
        # branches
        ("{{ if .yes }}y{{ else }}n{{ end }}{{ if .empty }}y{{ else }}n{{ end }}", "yn"),
        ("{{ if .no }}a{{ else if eq .n 3 }}b{{ else }}c{{ end }}", "b"),
        (
            "{{ with .map }}{{ .a }}{{ $.n }}{{ end }}{{ with .gone }}x{{ else }}none{{ end }}",
            "13none",
        ),
        ("{{ range .list }}<{{ . }}>{{ end }}", "<a><b><c>"),
        ("{{ range $i, $e := .list }}{{ $i }}{{ $e }}{{ end }}", "0a1b2c"),
        ("{{ range $k, $v := .map.deep }}{{ $k }}={{ $v }}{{ end }}", "x=y"),
        (
            "{{ range $e := .list }}{{ $e }}{{ end }}{{ range .gone }}x{{ else }}none{{ end }}",
            "abcnone",
        ),
        ('{{ range .list }}{{ if eq . "b" }}{{ continue }}{{ end }}{{ . }}{{ end }}', "ac"),
        ('{{ range .list }}{{ if eq . "b" }}{{ break }}{{ end }}{{ . }}{{ end }}', "a"),
        # other templates
        (
            '{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" .s }}{{ template "t" }}',
            "[hello][<no value>]",
        ),
        ('{{ block "t" .n }}({{ . }}){{ end }}', "(3)"),
        # Go's functions
        (
            "{{ and .yes .s }} {{ or .empty .s }} {{ not .no }} {{ and .empty (index .list 99) }}",
            "hello hello true ",
        ),
        (
            '{{ eq .n 1 2 3 }} {{ ne .s "x" }} {{ lt 1 2 }} {{ ge 1 2 }} {{ eq 1 1.0 }}',
            "true true true false true",
        ),
        (
            "{{ len .list }} {{ len .s }} {{ slice .s 1 3 }} {{ slice .list 1 }} {{"
            ' index .map "deep" "x" }}',
            "3 5 el [b c] y",
        ),
        ('{{ print 1 2 "a" "b" 3 }} {{ println "x" 1 }}', "1 2ab3 x 1\n"),
        (
            '{{ printf "%5d|%-5s|%05d|%q|%v|%t|%.2f|%x|%%" 3 "a" 42 "q" .list true 1.0 255 }}',
            '    3|a    |00042|"q"|[a b c]|true|1.00|ff|%',
        ),
        (
            '{{ printf "%s" }} {{ printf "x" 1 }} {{ printf "%d" "a" }}',
            "%!s(MISSING) x%!(EXTRA number=1) %!d(string=a)",
        ),
        ('{{ html "<a>" }} {{ urlquery "a b" }}', "&lt;a&gt; a+b"),
        # Drone's functions
        (
            '{{ append .s "!" }} {{ prepend .s "!" }} {{ padLeft "1" "0" 2 }} {{'
            ' padRight "1" "0" 2 }}',
            "hello! !hello 001 100",
        ),
        (
            '{{ base64Encode .s }} {{ base64Decode "aGVsbG8=" }} {{ chomp "a\\n\\n" }}',
            "aGVsbG8= hello a",
        ),
        (
            '{{ contains .s "ell" }} {{ containsAny .s "xyz" }} {{ hasPrefix .s "he" }}'
            ' {{ hasSuffix .s "x" }}',
            "true false true false",
        ),
        ('{{ indent "a\\nb" 2 }}|{{ nindent "a" 2 }}', "  a\n  b|\n  a"),
        (
            '{{ jsonify .map.deep }} {{ toYaml .list }} {{ (fromYaml "a: [1]").a }} {{ toYaml 1 }}',
            '{"x":"y"} - a\n- b\n- c [1] 1',
        ),
        (
            '{{ replace .s "l" "L" }} {{ split "a,b" "," }} {{ splitn "a,b,c" "," 2 }}',
            "heLLo [a b] [a b,c]",
        ),
        (
            '{{ trim " a " }}|{{ trimLeft "xxa" "x" }}|{{ trimRight "axx" "x" }}|{{'
            ' trimPrefix "v1" "v" }}|{{ trimSuffix "a.b" ".b" }}',
            "a|a|a|1|a",
        ),
        (
            '{{ lower "A" }} {{ title "a" }} {{ urlize " a b/c " }} {{ htmlEscape "<"'
            ' }} {{ htmlUnescape "&lt;" }}',
            "a A a-b%2Fc &lt; <",
        ),
        (
            '{{ md5 "" }} {{ sha1 "" | printf "%.8s" }} {{ sha256 "" | printf "%.8s" }}',
            "d41d8cd98f00b204e9800998ecf8427e da39a3ee e3b0c442",
        ),
    ],
)
def test_it_renders(source: str, expected: str) -> None:
    assert made(source) == expected


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("a\n{{ .s", 2, "without its }}"),
        ("{{ if .s }}\n", 1, "without its {{end}}"),
        ("{{ end }}", 1, "unexpected {{end}}"),
        ("\n\n{{ nope .s }}", 3, "no function nope"),
        ("{{ .s.x }}", 1, "no field x"),
        ("{{ .gone.x }}", 1, "no field x in nothing"),
        ("{{ $x }}", 1, "undefined variable $x"),
        ("{{ $x = 1 }}", 1, "undefined variable $x"),
        ("{{ .s 1 }}", 1, "only a function"),
        ("{{ 1 | .s }}", 1, "only a function"),
        ("{{ }}", 1, "a value is missing"),
        ("{{ (.s }}", 1, "without its ')'"),
        ("{{ .s ) }}", 1, "unexpected )"),
        ("{{ # }}", 1, "unexpected '#'"),
        ("{{ range .s }}{{ end }}", 1, "range needs"),
        ("{{ index .list 9 }}", 1, "out of range"),
        ('{{ lt 1 "a" }}', 1, "cannot compare"),
        ("{{ upper }}", 1, "upper cannot take"),
        ('{{ template "none" }}', 1, "no template"),
        ("{{ template none }}", 1, "name in quotes"),
        ('{{ define "t" }}{{ template "t" }}{{ end }}{{ template "t" }}', 1, "deeper than"),
        ("{{ break }}", 0, "break outside of range"),
        ("{{if .s}}" * 500, 1, "nested too deeply"),
        ("{{ " + "(" * 500 + " }}", 1, "nested too deeply"),
        ("{{ range $x := 100000 }}{{ end }}{{ range $x := 100000 }}{{ $x }}{{ end }}", 0, "steps"),
        ('{{ padLeft "" "x" 2000000 }}', 0, "longer than"),
    ],
)
def test_it_refuses(source: str, line: int, words: str) -> None:
    with pytest.raises(Failed) as caught:
        made(source)
    assert words in str(caught.value)
    assert caught.value.line == line


WORDS = [
    "{{", "}}", "-", ".s", "if", "end", "range", "|", "(", ")", '"a"', "$x", ":=", "1", "else", ".",
    "eq", "define", "with", " ", "\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS)).map("".join))
def test_any_template_renders_or_fails(source: str) -> None:
    try:
        made(source)
    except Failed as fault:
        assert str(fault)

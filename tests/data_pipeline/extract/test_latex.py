# ruff: noqa: E501 (source and text side by side)
"""Papers as LaTeX: what TeX makes of comments, macros, files and conditionals, written out by hand."""

from __future__ import annotations

import pytest

from data_pipeline.extract import latex
from data_pipeline.extract.latex.source import Bundle, find_main, without_comments


def plain(preamble: str, body: str, files: dict[str, str] | None = None) -> latex.Plain:
    paper = f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\nfront\n\\section{{S}}\n{body}\n\\end{{document}}\nafter"
    return latex.to_plain(Bundle("main.tex", {"main.tex": paper, **(files or {})}).to_bytes())


def text(preamble: str, body: str, files: dict[str, str] | None = None) -> str:
    made = plain(preamble, body, files)
    assert made.reason is None
    return made.text.removeprefix("\\section{S}\n")


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("a % gone\nb", "a\nb"),
        ("a% gone\n  b", "ab"),
        ("50\\% of it % gone", "50\\% of it "),
        ("line\\\\% gone\nnext", "line\\\\next"),
        ("\\alpha% gone\nb", "\\alpha\nb"),
        ("a%\n\nb", "a\n\nb"),
        ("a\n% whole line\nb", "a\nb"),
        ("a%\n%\n  b", "ab"),
        ("\\verb|%| a % gone", "\\verb|%| a "),
        ("\\verb*!a%b! c", "\\verb*!a%b! c"),
        ("\\url{http://a.b/%20c} d % gone", "\\url{http://a.b/%20c} d "),
        ("\\href{http://a.b/%20c}{d%\n e}", "\\href{http://a.b/%20c}{de}"),
        (
            "\\begin{verbatim}\n% kept\n\\end{verbatim} % gone",
            "\\begin{verbatim}\n% kept\n\\end{verbatim} ",
        ),
        (
            "\\begin{lstlisting}[x]\na % b\n\\end{lstlisting}",
            "\\begin{lstlisting}[x]\na % b\n\\end{lstlisting}",
        ),
        ("a\\begin{comment}\n50\\% % x\n\\end{comment}b", "ab"),
        ("\\begin{verbatim} % not closed\nb", "\\begin{verbatim}\nb"),
        ("a % gone\r\nb\rc", "a\nb\nc"),
    ],
)
def test_comments_go_and_what_looks_like_one_stays(source: str, made: str) -> None:
    assert without_comments(source) == made


@pytest.mark.parametrize(
    ("preamble", "body", "made"),
    [
        # Arguments, optional arguments, with and without braces, over lines.
        (r"\newcommand{\f}[2]{[#1|#2]}", "\\f{a}{b} \\f ab \\f {a}\n  {b} \\f{a{b}c}\\alpha!", "[a|b] [a|b] [a|b] [a{b}c|\\alpha]!"),
        (r"\newcommand{\f}[2][z]{#1#2}", r"\f{a} \f[b]{a} \f [{]}]{a}", "za ba ]a"),
        (r"\newcommand*\f[1]{\textbf{#1}}", r"\f{a}", r"\textbf{a}"),
        (r"\renewcommand{\vec}[1]{\mathbf{#1}}", r"$\vec x$", r"$\mathbf{x}$"),
        (r"\newcommand{\f}{a}\providecommand{\f}{b}\providecommand\g{c}", r"\f\g", "ac"),
        (r"\def\f#1{<#1>}", r"\f{ab}\f c", "<ab><c>"),
        (r"\def\f(#1,#2){\langle#1|#2\rangle}", r"\f(a,{b,c})", r"\langle a|b,c\rangle"),
        (r"\def\f#1.#2\end{#2 #1}", r"\f a.b c\end!", "b c a!"),
        (r"\newcommand{\f}[1]{\def\g##1{##1#1}}", r"\f{a}\g{b}", "ba"),
        # Nested macros, and macros whose arguments stand behind another one.
        (r"\newcommand{\f}[1]{\g{#1}}\newcommand{\g}[1]{(#1)}", r"\f{\f{a}}", "((a))"),
        (r"\newcommand{\bb}{\mathbb}\newcommand{\g}{\f}\newcommand{\f}[1]{(#1)}", r"$\bb{R}$ \g{a}", r"$\mathbb{R}$ (a)"),
        (r"\newcommand\be{\begin{equation}}\newcommand\ee{\end{equation}}", "\\be\nx\n\\ee\ny", "\\begin{equation}\nx\n\\end{equation}\ny"),
        # Blanks as TeX reads them; names kept apart from letters.
        (r"\newcommand{\f}{x}", "\\f y \\f\\ y \\f{} y $\\f{}_1$ \\f\ny", "xy x\\ y x y $x{}_1$ xy"),
        (r"\newcommand{\al}{\alpha}\newcommand{\v}[1]{\mathbf#1}", r"$\al b \v{x}$", r"$\alpha b \mathbf x$"),
        (r"\newcommand{\eg}{e.g.\xspace}", r"\eg this, \eg, (\eg) \eg\ x", r"e.g. this, e.g., (e.g.) e.g.\ x"),
        (r"\newcommand{\R}{ab}", r"$\mathbf\R \frac\R{c} \frac{c}\R$", r"$\mathbf{ab} \frac{ab}{c} \frac{c}{ab}$"),
        # Operators, delimiters, other names for LaTeX's own commands.
        (r"\DeclareMathOperator{\tr}{tr}\DeclareMathOperator*{\am}{arg\,min}", r"$\tr A \am_x$", r"$\operatorname{tr}A \operatorname*{arg\,min}_x$"),
        (r"\DeclarePairedDelimiter{\abs}{\lvert}{\rvert}", r"$\abs{x} \abs*{x}$", r"$\lvert x \rvert \left\lvert x \right\rvert$"),
        (r"\let\oldphi\phi\renewcommand{\phi}{\varphi}\let\p=\phi", r"$\oldphi\phi\p$", r"$\phi\varphi\varphi$"),
        (r"\let\oldsection\section\renewcommand{\section}[1]{\oldsection{X #1}}", r"\section{T}", r"\section{T}"),
        (r"\NewDocumentCommand{\f}{O{z} m}{#1#2}", r"\f{a}\f[b]{a}", "zaba"),
        # Definitions end with their group; \gdef does not.
        (r"\newcommand{\f}{a}", r"{\renewcommand{\f}{b}\f}\f{\gdef\f{c}}\f", "{b}a{}c"),
        (r"\newcommand{\f}{a}", "\\begin{center}\\def\\f{b}\\f\\end{center}\\f", "\\begin{center}b\\end{center}a"),
        # Conditionals.
        ("", "a\\iffalse b \\iffalse c\\fi d\\fi e \\iftrue f\\else g\\fi", "ae f"),
        (r"\newif\ifd\dtrue", r"\ifd a\else b\fi\dfalse\ifd c\else d\fi $a\iff b$", r"ad$a\iff b$"),
        (r"\newcommand{\f}[2][]{\ifx&#1&(#2)\else(#1:#2)\fi}", r"\f{a} \f[b]{a}", "(a) (b:a)"),
        (r"\newcommand{\f}[1]{\ifthenelse{\equal{#1}{}}{none}{#1}}", r"\f{} \f{a}", "none a"),
        (r"\newcommand{\f}{\ifmmode x\else$x$\fi}", r"\f{}", r"\ensuremath{x}"),
        (r"\makeatletter\def\f{\@ifstar\@a\@b}\def\@a{s}\def\@b#1{(#1)}\makeatother", r"\f* \f{a} a@b", "s (a) a@b"),
        (r"\newcommand{\f}[1]{(#1)}", "\\begin{filecontents}{a.bib}\n\\f{a}\n\\end{filecontents}b", "b"),
        # Where nothing is expanded.
        (r"\newcommand{\f}{a}", "\\verb|\\f| \\url{\\f}\n\\begin{verbatim}\n\\f\n\\end{verbatim}", "\\verb|\\f| \\url{\\f}\n\\begin{verbatim}\n\\f\n\\end{verbatim}"),
        (r"\newcommand{\f}{a}", r"\fx \ff $x_{1}^{2} \\ \frac{1}{2}\,$", r"\fx \ff $x_{1}^{2} \\ \frac{1}{2}\,$"),
    ],
)  # fmt: skip
def test_macros_are_replaced_by_what_they_stand_for(preamble: str, body: str, made: str) -> None:
    assert text(preamble, body) == made


@pytest.mark.parametrize(
    ("preamble", "body", "made"),
    [
        (r"\newcommand{\f}{a\f}", r"x\f", r"a\f"),
        (r"\def\f{\g}\def\g{\f}", r"x \f", r"\f|\g"),
        (r"\newcommand{\f}[1]{(#1)}", "x {\\f} \\f{y", r"{\f}"),
        (r"\newcommand{\f}[1]{\csname g#1\endcsname}", r"\f{a}", r"\f{a}"),
        (r"\newcommand{\f}", r"\g", r"\g"),
    ],
)
def test_what_cannot_be_expanded_stays_and_is_named(preamble: str, body: str, made: str) -> None:
    result = plain(preamble, body)
    assert any(part in result.text for part in made.split("|"))
    assert "f" in result.metadata.get("unexpanded", ["f"]) or "g" in result.metadata["unexpanded"]  # type: ignore[operator]


def test_bombs_are_refused_with_a_reason() -> None:
    doubling = "".join(
        f"\\newcommand{{\\b{chr(97 + i)}}}{{\\b{chr(98 + i)}\\b{chr(98 + i)}}}" for i in range(25)
    )
    made = plain(doubling + r"\newcommand{\bz}{xxxxxxxxxxxxxxxx}", r"\ba")
    assert made.text == "" and made.reason is not None and "without bound" in made.reason
    made = plain(
        "",
        r"\input{a}",
        {f"{c}.tex": f"\\input{{{chr(ord(c) + 1)}}}" * 20 for c in "abcdefgh"} | {"i.tex": "x" * 99},
    )
    assert made.text == "" and made.reason is not None and "without bound" in made.reason
    made = plain(r"\def\f#1{\f{#1#1}}", r"\f{x}")
    assert made.text == "" and made.reason is not None and "without bound" in made.reason


def test_files_are_taken_from_the_archive_alone() -> None:
    files = {
        "one.tex": "1% comment\n",
        "sections/two.tex": r"2 \input{sections/three}",
        "sections/three.tex": "3",
    }
    body = "\\input{one}, \\include{sections/two}, \\input one \\input{../one}\\input{/etc/passwd}\\import{sections/}{three}."
    assert text("", body, files) == "1, 2 3, 13."
    assert plain("", r"\input{none}\input{../x}").removed == {"missing files": 2}


def test_a_file_that_includes_itself_ends() -> None:
    made = plain("", r"\input{a}", {"a.tex": r"x\input{b}", "b.tex": r"y\input{a}\input{main}"})
    assert made.text == "\\section{S}\nxy" and made.removed == {"files that include themselves": 2}


def test_definitions_come_from_packages_of_the_archive() -> None:
    package = "\\ProvidesPackage{mine}\n\\newcommand{\\f}[1]{(\\m@g{#1})}\\def\\m@g#1{<#1>}\\def\\section{\\@startsection}\nnoise"
    made = plain(r"\usepackage[x]{amsmath,mine}", r"\f{a}", {"mine.sty": package})
    assert made.text == "\\section{S}\n(<a>)"


def test_front_matter_and_bibliography_go_and_the_appendix_stays() -> None:
    body = (
        "text \\cite{x}.\n\n\\section*{References}\n\\begin{thebibliography}{9}\n\\bibitem{x} X, 50\\%.\n\\end{thebibliography}\n"
        "\\bibliographystyle{plain}\\bibliography{refs}\n\\appendix\n\\section{A}\nmore"
    )
    made = plain(r"\title{T}\author{A}", body)
    assert made.text == "\\section{S}\ntext \\cite{x}.\n\n\\appendix\n\\section{A}\nmore"


def test_the_abstract_is_a_choice() -> None:
    paper = r"""\documentclass{article}\newcommand{\f}{F}\begin{document}\maketitle
\begin{abstract}
An \f.
\end{abstract}
\section{S} text\end{document}"""
    payload = Bundle("m.tex", {"m.tex": paper}).to_bytes()
    assert latex.to_plain(payload).text == "\\section{S} text"
    assert (
        latex.to_plain(payload, True).text == "\\begin{abstract}\nAn F.\n\\end{abstract}\n\n\\section{S} text"
    )


def test_papers_without_sections_are_kept_from_behind_their_front_matter() -> None:
    letter = r"\documentstyle[prl]{revtex}\def\x#1{(#1)}\begin{document}\title{T}\begin{abstract}a\end{abstract}\maketitle Letter \x{y}.\end{document}"
    made = latex.to_plain(Bundle("m.tex", {"m.tex": letter}).to_bytes())
    assert made.text == "Letter (y)." and made.metadata["sections"] is False
    tex = "\\magnification=1200\n\\def\\x#1{(#1)}\nPlain \\x y.\n\\bye\nafter"
    assert (
        latex.to_plain(Bundle("m.tex", {"m.tex": tex}).to_bytes()).text == "\\magnification=1200\nPlain (y)."
    )


def test_sections_made_by_macros_count() -> None:
    made = latex.to_plain(
        Bundle(
            "m.tex",
            {
                "m.tex": "\\documentclass{a}\\newcommand{\\sect}[1]{\\section{#1}}\\begin{document}front \\sect{One} a\\end{document}"
            },
        ).to_bytes()
    )
    assert made.text == "\\section{One} a"


@pytest.mark.parametrize(
    ("files", "main"),
    [
        ({"paper.tex": "D", "supplement.tex": "D" + "x" * 999}, "paper.tex"),
        (
            {
                "a.tex": "D",
                "fig.tex": "\\documentclass{standalone}\\begin{document}x\\end{document}" + "x" * 999,
            },
            "a.tex",
        ),
        ({"a.tex": "D \\input{b}", "b.tex": "D" + "x" * 999}, "a.tex"),
        ({"old/main.tex": "D" + "x" * 999, "top.tex": "D"}, "top.tex"),
        ({"main.tex": "% \\documentclass{a}\n", "real.tex": "D"}, "real.tex"),
        ({"frame.tex": "\\def\\x{y}\\input{main}", "main.tex": "D"}, "frame.tex"),
        ({"plain.tex": "text \\bye", "macros.tex": "\\def\\x{y}"}, "plain.tex"),
        ({"notes.txt": "words"}, None),
    ],
)
def test_the_main_file_is_found(files: dict[str, str], main: str | None) -> None:
    document = "\\documentclass{article}\\begin{document}\\section{S}x\\end{document}"
    assert find_main({name: content.replace("D", document, 1) for name, content in files.items()}) == main

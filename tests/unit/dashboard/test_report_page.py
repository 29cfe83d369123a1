"""The report: one file that holds all it needs."""

import base64
import hashlib
import json
import re

from cospan.dashboard.report_page import report_page


def test_the_report_holds_all_that_it_needs_and_its_policy_allows_nothing_else() -> None:
    page = report_page({"run": {"message": "</script><script>alert(1)</script>"}})
    assert "</script><script>alert" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    for kind, text in (
        ("style", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)),
        ("script", re.findall(r"<script>(.*?)</script>", page, re.DOTALL)),
    ):
        (content,) = text
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["run"]["message"] == "</script><script>alert(1)</script>"

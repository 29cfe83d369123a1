"""The dashboard of a running coordinator, and the report page of a finished run.

It only reads; `app` has the HTTP side, `page/` what the browser runs. Begin with `server`.
"""

"""What the pages say, in one place: a page that says it otherwise is mended here."""

from __future__ import annotations

LOGIN, PASSWORD, SIGN_IN, SIGN_OUT = "Login", "Password", "Sign in", "Sign out"
SIGN_IN_AND_GO_ON = "Sign in and go on"
WRONG = "The login or the password is wrong, or the account is locked."

KEPT_TEXT = "Your text"

WORKLIST, NEXT = "Worklist", "Next to read ›"
SEARCH, BACK_TO_WORKLIST, FILTERS, FILTER, CLEAR = "Search", "Back to the worklist", "Filters", "Filter", "Clear"
PATIENT_NAME, PATIENT_ID, ACCESSION, FROM, TO = (
    "Patient name",
    "Patient ID",
    "Accession number",
    "Study date from",
    "to",
)
NOTHING_FOUND, NOTHING_WAITS = "No study matches this search.", "Nothing is waiting here."
TABS = ("To read", "Not ready", "Preliminary", "Signed", "Needs attention", "All")

TEXT, SAVE, SAVED = "Text", "Save", "Saved."
PRELIMINARY, DECLARED = "Save and declare preliminary", "Declared preliminary."
GO_ON_TO_SIGN, SIGNED = "Save and go on to sign …", "Signed. The report is final."
UNSAVED = "There are words that are not saved."
SAVED_BETWEEN, SAVED_NOW = "Somebody saved in between", "What is saved now"
CANCEL, CANCEL_IT, CANCELLED, REASON = "Cancel this report", "Cancel the report", "The report is cancelled.", "Reason"
BEGIN, BEGUN = "Begin the report by hand", "The report is begun. Nothing is in it yet."
NOT_ANALYSED = "Not analysed."
CHANGED = "This study has changed: show what is new"

BACK_TO_EDITOR, WRONG_PASSWORD = "Back to the editor", "The password was wrong"
REASON_FOR_NEW_IMAGES = "Reason to sign although the images changed"
MAY_NOT_SIGN_CONFLICT = "Nothing can be signed until that is decided."

BANNER_DRAFT, BANNER_UNSIGNED = "AI DRAFT – NOT REVIEWED", "UNSIGNED"
VIEW, LANGUAGE, DARK, LIGHT = "View", "Language", "Dark", "Light"
READ_AGAIN, OPERATIONS, CLOSE_NOW = "Read again", "Operations", "It is complete: close it now"

"""What each code of a problem means and what to do: for `/problems/{code}` and the page of them."""

import json
from dataclasses import dataclass

from api.problems import PROBLEM_TYPES


@dataclass(frozen=True, slots=True)
class Guide:
    """What to know of one code."""

    meaning: str
    remedy: str
    #: What the `detail` of one occurrence said, and at which field.
    example: str
    pointer: str | None = None


GUIDES = {
    "malformed_body": Guide(
        "The body is not JSON in UTF-8, or has a name twice in one object.",
        "Send RFC 8259 JSON; the detail says where reading ended.",
        "the body is not JSON: Expecting value at line 1 column 12",
    ),
    "malformed_form": Guide(
        "The body of an upload is no form of one file, or it was cut off.",
        "Send multipart/form-data with one field, `file`, and nothing else.",
        "send a form of one file, in the field 'file', and nothing else",
    ),
    "invalid_cursor": Guide(
        "The `cursor` of a list is not one that a page of it ended with.",
        "Use `next_cursor` of the page before as it is, or leave it out to begin anew.",
        "use next_cursor of the page before, or none",
    ),
    "invalid_idempotency_key": Guide(
        "The header `Idempotency-Key` cannot be used.",
        "Send one of 1 to 255 printable ASCII characters, bare or in double quotes.",
        "send one Idempotency-Key of 1 to 255 printable ASCII characters, in double quotes or bare",
    ),
    "bad_request": Guide(
        "The HTTP request itself cannot be understood.",
        "Look at how it is put together; an HTTP library does so rightly.",
        "There was an error parsing the body",
    ),
    "unauthorized": Guide(
        "There is no API key, or it is not valid or was revoked.",
        "Send `Authorization: Bearer KEY`. `latentq keys create` makes keys.",
        "send a valid API key as Authorization: Bearer KEY",
    ),
    "forbidden": Guide(
        "The key is valid, but not for this: it lacks the scope that the detail names.",
        "Use a key with that scope. `latentq keys create --scope` makes one, and so does "
        "`POST /v1/keys` with a key of scope `admin`.",
        "this needs a key with the scope jobs:write",
    ),
    "over_key_limit": Guide(
        "The request asks for more than its key allows in one job, or for another model.",
        "Ask for what each detail says is allowed, or use another key.",
        "this key allows at most 50",
        "#/steps",
    ),
    "not_found": Guide(
        "There is no such path, or the caller's tenant has no such thing (any more).",
        "Look at the id, and at whose key is used: what is another tenant's is not found either.",
        "there is no such job",
    ),
    "method_not_allowed": Guide(
        "The path exists, but not with this method.",
        "Use a method that the header `Allow` names.",
        "Method Not Allowed",
    ),
    "job_already_finished": Guide(
        "The job has ended in a way that does not allow this.",
        "Read the job. What has succeeded or failed cannot be canceled; what has succeeded is"
        " submitted again, not retried.",
        "the job has succeeded",
    ),
    "job_canceled": Guide(
        "The job that a request of OpenAI's API made and waited for was canceled.",
        "Send the request again to have another job.",
        "the job was canceled",
    ),
    "job_not_finished": Guide(
        "The job waits or runs, and this can be done only when it has ended.",
        "Wait for its end, or cancel it.",
        "the job is running",
    ),
    "endpoint_disabled": Guide(
        "The webhook endpoint gets nothing: it answered 410, or its owner disabled it.",
        'Enable it: `PATCH /v1/webhook-endpoints/{id}` with `{"enabled": true}`.',
        "enable the endpoint first",
    ),
    "endpoint_exists": Guide(
        "The tenant has a webhook endpoint with this URL; a second one would get all twice.",
        "Change the one that the detail names.",
        "ep_5f2b has this URL; change that one",
    ),
    "too_many_endpoints": Guide(
        "The tenant has as many webhook endpoints as it may have: each is told of each job.",
        "Delete one, or tell one receiver and spread the messages from there.",
        "16 endpoints are the limit; delete one first",
    ),
    "too_many_secrets": Guide(
        "The endpoint's secret was replaced so often within 24 hours that no more can be in use.",
        "Wait until one has ended, or delete the endpoint and make it anew.",
        "5 secrets are in use; each ends 24 hours after it was replaced",
    ),
    "upload_incomplete": Guide(
        "The file that was announced has not arrived in the store.",
        "Send it by the form that `POST /v1/uploads` answered, then complete it.",
        "send the file first",
    ),
    "builtin_preset": Guide(
        "A preset of this name comes with LatentQ, for all tenants.",
        "Take another name.",
        "balanced comes with LatentQ and stays as it is; take another name, such as my-balanced",
    ),
    "too_many_presets": Guide(
        "The tenant has as many presets as it may have, or one has had as many versions.",
        "Delete a preset that nobody uses, or go on under another name.",
        "there are 100 presets already; delete one first",
    ),
    "body_too_large": Guide(
        "The body has more bytes than any valid one.",
        "Send less; pictures go to `POST /v1/uploads`.",
        "a body may have 262,144 bytes",
    ),
    "upload_too_large": Guide(
        "The form around a picture has more than 32 MiB.",
        "Scale the picture down: jobs scale it to their own size anyway.",
        "a form may have 33,554,432 bytes",
    ),
    "unsupported_image": Guide(
        "The first bytes are not those of a PNG, JPEG or WebP picture, whatever its name says.",
        "Convert it to one of these.",
        "PNG, JPEG and WebP pictures are taken",
    ),
    "unsupported_media_type": Guide(
        "The header `Content-Type` names what this route does not read.",
        "Send what the detail names.",
        "send the body as Content-Type: application/json",
    ),
    "invalid_request": Guide(
        "Fields or parameters cannot be as they are, alone or together.",
        "`errors` names each with a JSON Pointer and says what would work.",
        "#/guidance: Input should be less than or equal to 50",
        "#/guidance",
    ),
    "not_supported_yet": Guide(
        "The field is known, and this version does not serve what it holds.",
        "Send what the detail names.",
        "#/image: a job starts from one picture; send one",
        "#/image",
    ),
    "prompt_too_long": Guide(
        "The prompt has more characters or tokens than the model reads; nothing is cut off.",
        "Shorten it to the limit that the detail names.",
        "#/prompt: has 4,010 characters; at most 4,000 work",
        "#/prompt",
    ),
    "unknown_model": Guide(
        "The catalog has no model of this id.",
        "Choose one of `GET /v1/models`.",
        "#/model: no such model; known: demo",
        "#/model",
    ),
    "unknown_preset": Guide(
        "There is no preset of this name, or no such version of it.",
        "Choose one of `GET /v1/presets`.",
        "#/preset: no such preset; known: balanced@1, creative@1, precise@1, fast@1, reference@1",
        "#/preset",
    ),
    "unknown_adapter": Guide(
        "The catalog has no adapter of this id.",
        "Choose one that `GET /v1/models` shows with the model.",
        "#/adapters/0/id: no such adapter; demo takes pastel",
        "#/adapters/0/id",
    ),
    "unknown_upload": Guide(
        "The tenant has no such upload (any more): unused ones are kept for a day.",
        "Send the picture again: the same bytes get the same id.",
        "#/init_image: no such upload; POST /v1/uploads takes pictures",
        "#/init_image",
    ),
    "unusable_input": Guide(
        "The job that a request of OpenAI's API made has failed for a picture that came with it.",
        "Send another one: whole, of one frame, at most 16,777,216 pixels; a mask without"
        " transparency.",
        "mask is transparent somewhere; white is made anew, black is kept",
    ),
    "upload_mismatch": Guide(
        "What arrived in the store is not the file that was announced.",
        "Send the right one by the same form while it works, or announce it anew.",
        "it is image/jpeg, not image/png; send the right one",
    ),
    "idempotency_key_reused": Guide(
        "The `Idempotency-Key` came before, with another body or on another route.",
        "Use a new key for a new request; send the old body to get the old answer.",
        "this Idempotency-Key came with another body before",
    ),
    "job_failed": Guide(
        "The job that a request of OpenAI's API made and waited for has failed.",
        "Read the job by the `Location` of the answer. Nothing sends it again by itself.",
        "non_finite: the model returned numbers that are not finite",
    ),
    "quota_exceeded": Guide(
        "The key has used up what it may take; `violated-policies` names the limits.",
        "Come back after the seconds of `Retry-After`, or when some of its jobs have ended.",
        "this key may have 10 jobs waiting at once",
    ),
    "internal": Guide(
        "The service met an error that nobody expected. The request may or may not have had its"
        " effect.",
        "Send it again with the same `Idempotency-Key`; give `request_id` to who runs the service.",
        "the log of the service tells more under this request's id",
    ),
    "too_many_waiting": Guide(
        "As many requests of this key wait for jobs in one process as may, streams included.",
        "End some of them, or ask without `Prefer: wait` until there are fewer.",
        "up to 1,000 requests of a key may wait at a time in one process; end some, or ask "
        "without waiting",
    ),
    "service_unavailable": Guide(
        "A store that the request needs does not answer. Nothing was done.",
        "Send it again after the seconds of `Retry-After`.",
        "PostgreSQL does not answer",
    ),
    "read_only": Guide(
        "The operator has closed the service to changes for a while. Reading works, and jobs that "
        "were accepted go on.",
        "Send it again after the seconds of `Retry-After`, with the same Idempotency-Key. For "
        "whoever runs the service: `latentq read-only off` opens it.",
        "nothing can be changed for now: maintenance is under way; reading works, and accepted "
        "jobs go on",
    ),
    "timeout": Guide(
        "The job that a request of OpenAI's API made has not ended yet. It goes on.",
        "Read the job by the `Location` of the answer until it has ended.",
        "the job has not ended within 540 s; it goes on",
    ),
    "queue_full": Guide(
        "As many jobs wait in the whole system as it takes; the request was not looked at further.",
        "Send it again after the seconds of `Retry-After`, with the same Idempotency-Key.",
        "as many jobs wait as the service takes; come back later",
    ),
}


def explain_problem(code: str) -> str:
    """Write the section of a code as markdown."""
    kind, guide = PROBLEM_TYPES[code], GUIDES[code]
    example = {
        "type": f"/problems/{slug_of(code)}",
        "title": kind.title,
        "status": kind.status,
        "detail": guide.example,
        "code": code,
        "errors": []
        if guide.pointer is None
        else [
            {"pointer": guide.pointer, "detail": guide.example.removeprefix(f"{guide.pointer}: ")}
        ],
    }
    shown = "\n".join(f"    {line}" for line in json.dumps(example, indent=2).splitlines())
    return (
        f"## {code}\n\n{kind.status}: {kind.title}.\n\n{guide.meaning}\n\n"
        f"**What to do.** {guide.remedy}\n\n{shown}\n"
    )


def slug_of(code: str) -> str:
    """Write a code as the last part of a problem's `type`."""
    return code.replace("_", "-")

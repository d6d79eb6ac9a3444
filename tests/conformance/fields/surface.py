"""OpenAI's endpoints that a fine-tuning platform can have, by priority, served here or not.

Audio, images, video, realtime, assistants, vector stores and the like are no part of it.
"""

import re
from typing import Literal

Priority = Literal["MUST", "SHOULD", "LATER"]

PROJECT = "/organization/projects/{project_id}"
CHECKPOINT = "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}"

# For each path the methods that it has.
SURFACE: dict[Priority, dict[str, str]] = {
    # The line itself: files, jobs, models and their answers.
    "MUST": {
        "/files": "GET POST",
        "/files/{file_id}": "GET DELETE",
        "/files/{file_id}/content": "GET",
        "/fine_tuning/jobs": "GET POST",
        "/fine_tuning/jobs/{fine_tuning_job_id}": "GET",
        "/fine_tuning/jobs/{fine_tuning_job_id}/cancel": "POST",
        "/fine_tuning/jobs/{fine_tuning_job_id}/events": "GET",
        "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": "GET",
        "/models": "GET",
        "/models/{model}": "GET DELETE",
        "/chat/completions": "POST",
        "/moderations": "POST",
    },
    # What a platform around it needs.
    "SHOULD": {
        "/uploads": "POST",
        "/uploads/{upload_id}/parts": "POST",
        "/uploads/{upload_id}/complete": "POST",
        "/uploads/{upload_id}/cancel": "POST",
        "/fine_tuning/jobs/{fine_tuning_job_id}/pause": "POST",
        "/fine_tuning/jobs/{fine_tuning_job_id}/resume": "POST",
        "/fine_tuning/alpha/graders/run": "POST",
        "/fine_tuning/alpha/graders/validate": "POST",
        "/fine_tuning/model_limits": "GET",
        "/chat/completions": "GET",
        "/chat/completions/{completion_id}": "GET POST DELETE",
        "/chat/completions/{completion_id}/messages": "GET",
        "/completions": "POST",
        "/responses": "POST",
        "/embeddings": "POST",
        "/batches": "GET POST",
        "/batches/{batch_id}": "GET",
        "/batches/{batch_id}/cancel": "POST",
        "/webhook_endpoints": "GET POST",
        "/webhook_endpoints/{webhook_endpoint_id}": "GET POST DELETE",
        "/webhook_endpoints/{webhook_endpoint_id}/rotate_secret": "POST",
        "/webhook_endpoints/{webhook_endpoint_id}/test": "POST",
        "/webhook_event_types": "GET",
        "/organization/admin_api_keys": "GET POST",
        "/organization/admin_api_keys/{key_id}": "GET DELETE",
        "/organization/audit_logs": "GET",
        "/organization/projects": "GET POST",
        PROJECT: "GET POST",
        PROJECT + "/archive": "POST",
        PROJECT + "/api_keys": "GET",
        PROJECT + "/api_keys/{api_key_id}": "GET POST DELETE",
        PROJECT + "/model_permissions": "GET POST DELETE",
        PROJECT + "/rate_limits": "GET",
        PROJECT + "/rate_limits/{rate_limit_id}": "POST",
        PROJECT + "/service_accounts": "GET POST",
        PROJECT + "/service_accounts/{service_account_id}": "GET POST DELETE",
        PROJECT + "/service_accounts/{service_account_id}/api_keys": "POST",
        PROJECT + "/spend_alerts": "GET POST",
        PROJECT + "/spend_alerts/{alert_id}": "GET POST DELETE",
        PROJECT + "/spend_limit": "GET POST DELETE",
        PROJECT + "/users": "GET POST",
        PROJECT + "/users/{user_id}": "GET POST DELETE",
        "/projects/{project_id}/users/{user_id}/roles": "GET POST",
        "/projects/{project_id}/users/{user_id}/roles/{role_id}": "GET DELETE",
        "/organization/spend_limit": "GET POST DELETE",
        "/organization/costs": "GET",
        "/organization/usage/completions": "GET",
        "/organization/usage/embeddings": "GET",
        "/organization/usage/moderations": "GET",
    },
    "LATER": {
        CHECKPOINT + "/permissions": "GET POST",
        CHECKPOINT + "/permissions/{permission_id}": "DELETE",
        "/responses/{response_id}": "GET DELETE",
        "/responses/{response_id}/cancel": "POST",
        "/responses/{response_id}/input_items": "GET",
        "/responses/input_tokens": "POST",
        "/responses/compact": "POST",
        "/conversations": "POST",
        "/conversations/{conversation_id}": "GET POST DELETE",
        "/conversations/{conversation_id}/items": "GET POST",
        "/conversations/{conversation_id}/items/{item_id}": "GET DELETE",
        "/evals": "GET POST",
        "/evals/{eval_id}": "GET POST DELETE",
        "/evals/{eval_id}/runs": "GET POST",
        "/evals/{eval_id}/runs/{run_id}": "GET DELETE",
        "/evals/{eval_id}/runs/{run_id}/cancel": "POST",
        "/evals/{eval_id}/runs/{run_id}/output_items": "GET",
        "/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}": "GET",
        "/organization/invites": "GET POST",
        "/organization/invites/{invite_id}": "GET DELETE",
        "/organization/spend_alerts": "GET POST",
        "/organization/spend_alerts/{alert_id}": "GET POST DELETE",
        "/organization/users": "GET",
        "/organization/users/{user_id}": "GET POST DELETE",
        "/organization/users/{user_id}/roles": "GET POST",
        "/organization/users/{user_id}/roles/{role_id}": "GET DELETE",
    },
}


# Endpoints of ours, which OpenAI does not have.
OURS: dict[str, str] = {"/files/{file_id}/check": "POST"}


def ours() -> list[str]:
    """Return the shapes of our own endpoints."""
    return [shape(method, path) for path, methods in OURS.items() for method in methods.split()]


def shape(method: str, path: str) -> str:
    """Return an endpoint without the names of its path's parameters."""
    return f"{method.upper()} " + re.sub(r"\{[^}]*\}", "{}", path)


def endpoints(*priorities: Priority) -> list[str]:
    """Return the shapes of the endpoints of some priorities."""
    return [
        shape(method, path)
        for priority in priorities
        for path, methods in SURFACE[priority].items()
        for method in methods.split()
    ]

/*
 * Error codes of the container API. See api_error.h; the facts are those of the official server and SDK, 0.12 line.
 */
#include "api_error.h"
#include "json_read.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FROM_TEXT = -1 }; /* the errno stands in context.stderr or in the message */

static const struct {
	const char *code;
	int err;
	bool retry;
} codes[] = {
	{"FILE_NOT_FOUND", ENOENT, false},
	{"FILE_EXISTS", EEXIST, false},
	{"IS_DIRECTORY", EISDIR, false},
	{"NOT_DIRECTORY", ENOTDIR, false},
	{"PERMISSION_DENIED", EACCES, false},
	{"FILE_TOO_LARGE", EFBIG, false},
	{"NO_SPACE", ENOSPC, false},
	{"READ_ONLY", EROFS, false},
	{"NAME_TOO_LONG", ENAMETOOLONG, false},
	{"TOO_MANY_FILES", EMFILE, false},
	{"TOO_MANY_LINKS", EMLINK, false},
	{"RESOURCE_BUSY", EBUSY, false},
	{"FILESYSTEM_ERROR", FROM_TEXT, false},
	{"SECURITY_VALIDATION_FAILED", EINVAL, false},
	{"VALIDATION_FAILED", EINVAL, false},
	{"INVALID_COMMAND", EINVAL, false},
	{"INVALID_PORT", EINVAL, false},
	{"INVALID_PORT_NUMBER", EINVAL, false},
	{"INVALID_GIT_URL", EINVAL, false},
	{"INVALID_MOUNT_CONFIG", EINVAL, false},
	{"INVALID_BACKUP_CONFIG", EINVAL, false},
	{"COMMAND_NOT_FOUND", ESRCH, false},
	{"COMMAND_PERMISSION_DENIED", EPERM, false},
	{"PROCESS_PERMISSION_DENIED", EPERM, false},
	{"COMMAND_EXECUTION_ERROR", FROM_TEXT, false},
	{"STREAM_START_ERROR", FROM_TEXT, true},
	{"PROCESS_NOT_FOUND", ENOENT, false},
	{"PROCESS_ERROR", EIO, false},
	{"PROCESS_READY_TIMEOUT", ETIMEDOUT, false},
	{"PROCESS_EXITED_BEFORE_READY", ECHILD, false},
	{"SESSION_ALREADY_EXISTS", EEXIST, false},
	{"SESSION_TERMINATED", ESTALE, false},
	{"SESSION_DESTROYED", ESTALE, false},
	{"PORT_ALREADY_EXPOSED", EADDRINUSE, false},
	{"PORT_IN_USE", EADDRINUSE, false},
	{"PORT_NOT_EXPOSED", ENOENT, false},
	{"SERVICE_NOT_RESPONDING", ECONNREFUSED, true},
	{"CUSTOM_DOMAIN_REQUIRED", ENOTSUP, false},
	{"GIT_REPOSITORY_NOT_FOUND", ENOENT, false},
	{"GIT_BRANCH_NOT_FOUND", ENOENT, false},
	{"GIT_AUTH_FAILED", EACCES, false},
	{"GIT_NETWORK_ERROR", ETIMEDOUT, true},
	{"GIT_CLONE_FAILED", FROM_TEXT, false},
	{"GIT_CHECKOUT_FAILED", FROM_TEXT, false},
	{"GIT_OPERATION_FAILED", FROM_TEXT, false},
	{"MISSING_CREDENTIALS", EACCES, false},
	{"BACKUP_NOT_FOUND", ENOENT, false},
	{"BACKUP_EXPIRED", ESTALE, false},
	{"BACKUP_CREATE_FAILED", FROM_TEXT, false},
	{"BACKUP_RESTORE_FAILED", FROM_TEXT, false},
	{"INTERPRETER_NOT_READY", EAGAIN, true},
	{"CONTEXT_NOT_FOUND", ENOENT, false},
	{"CONTEXT_ALREADY_EXISTS", EEXIST, false},
	{"PYTHON_NOT_AVAILABLE", ENOTSUP, false},
	{"JAVASCRIPT_NOT_AVAILABLE", ENOTSUP, false},
	{"TYPESCRIPT_NOT_AVAILABLE", ENOTSUP, false},
	{"WATCH_NOT_FOUND", ENOENT, false},
	{"RPC_TRANSPORT_ERROR", ENOTCONN, false},
	{"CONTAINER_UNAVAILABLE", EHOSTDOWN, true},
	{"OPERATION_INTERRUPTED", EIO, false},
	{"INVALID_JSON_RESPONSE", EPROTO, true},
	{"INTERNAL_ERROR", FROM_TEXT, false},
};

static const struct {
	const char *text;
	int err;
} texts[] = {
	{"E2BIG", E2BIG},
	{"Command timeout after", ETIMEDOUT},
	{"posix_spawn", ENOENT},
	{"ENOENT", ENOENT},
	{"EISDIR", EISDIR},
	{"ENOTDIR", ENOTDIR},
	{"ENAMETOOLONG", ENAMETOOLONG},
	{"EACCES", EACCES},
	{"EPERM", EPERM},
	{"EEXIST", EEXIST},
	{"ENOSPC", ENOSPC},
	{"EROFS", EROFS},
	{"ENOTEMPTY", ENOTEMPTY},
	{"EBUSY", EBUSY},
	{"ELOOP", ELOOP},
	{"EDQUOT", EDQUOT},
	{"ENXIO", ENXIO},
	{"already exists and is not an empty", EEXIST},
	{"are the same file", EEXIST},
	{"to a subdirectory of itself", EINVAL},
	{"cannot overwrite non-directory", ENOTDIR},
	{"No such file or directory", ENOENT},
	{"File exists", EEXIST},
	{"Permission denied", EACCES},
	{"Operation not permitted", EPERM},
	{"Not a directory", ENOTDIR},
	{"Is a directory", EISDIR},
	{"Directory not empty", ENOTEMPTY},
	{"No space left on device", ENOSPC},
	{"Disk quota exceeded", EDQUOT},
	{"Read-only file system", EROFS},
	{"File name too long", ENAMETOOLONG},
	{"Device or resource busy", EBUSY},
	{"Too many levels of symbolic links", ELOOP},
	{"Input/output error", EIO},
	{"does not exist", ENOENT},
	{"not found", ENOENT},
};

int api_errno_of_text(const char *text)
{
	for (size_t i = 0; text && i < sizeof texts / sizeof texts[0]; i++)
		if (strstr(text, texts[i].text))
			return texts[i].err;
	return EIO;
}

static const char *string_at(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

static int errno_of_status(int status)
{
	switch (status) {
	case 400:
		return EINVAL;
	case 401:
	case 403:
		return EACCES;
	case 404:
		return ENOTSUP; /* a route that this server does not have */
	case 409:
		return EBUSY;
	case 413:
		return EFBIG;
	case 503:
		return EHOSTDOWN;
	default:
		return EIO;
	}
}

static struct json_object *parse(const char *body, size_t size)
{
	struct json_object *o;

	/* One that cannot be read says nothing but its status. */
	(void)json_read(body, size, JSON_DEPTH, JSON_LITTLE, &o);
	if (o && !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	return o;
}

int api_error(struct call *c, int status, const char *body, size_t size)
{
	struct json_object *o = size ? parse(body, size) : NULL, *context = NULL;
	const char *code = o ? string_at(o, "code") : NULL;
	const char *message = o ? string_at(o, "message") : NULL;
	const char *detail = NULL, *suggestion, *operation;
	int err = errno_of_status(status);
	bool retry = false, known = false;

	if (o && !message)
		message = string_at(o, "error");
	if (o && json_object_object_get_ex(o, "context", &context) &&
		json_object_is_type(context, json_type_object))
		detail = string_at(context, "stderr");
	for (size_t i = 0; code && i < sizeof codes / sizeof codes[0]; i++) {
		if (strcmp(codes[i].code, code) == 0) {
			err = codes[i].err != FROM_TEXT ? codes[i].err
											: api_errno_of_text(detail ? detail : message);
			retry = codes[i].retry;
			known = true;
			break;
		}
	}
	if (!known && code && strcmp(code, "UNKNOWN_ERROR") == 0 && status != 404)
		err = EIO;
	call_fault(c, err, code, "%s%s%s", message ? message : "the server answered with an error",
		detail ? ": " : "", detail ? detail : "");
	if (c && c->fault.err == err) {
		suggestion = o ? string_at(o, "suggestion") : NULL;
		operation = o ? string_at(o, "operation") : NULL;
		if (suggestion && !c->fault.suggestion)
			c->fault.suggestion = strdup(suggestion);
		if (operation && !c->fault.operation)
			c->fault.operation = strdup(operation);
		c->fault.retry = retry;
	}
	json_object_put(o);
	return -err;
}

bool api_error_is_passing(int status, const char *body, size_t size)
{
	struct json_object *o;
	bool own;

	if (status != 429 && status < 500)
		return false;
	o = size ? parse(body, size) : NULL;
	own = o && string_at(o, "code") && strcmp(string_at(o, "code"), "CONTAINER_UNAVAILABLE") != 0;
	json_object_put(o);
	return !own;
}

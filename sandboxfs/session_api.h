/*
 * The sessions of a sandbox, over the wire: requests and their answers as structs. The client of session/create, list and delete, and of
 * sandboxd's own routes for the state of a shell. Owns nothing; thread-safe. What is remembered of sessions is the control tree's.
 */
#ifndef SBX_SESSION_API_H
#define SBX_SESSION_API_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "sandbox.h"

struct json_object;

enum {
	SESSION_API_PATH_MAX = 4095, /* bytes of a directory's path */
	SESSION_API_LIST_MAX = 4096  /* names in a server's list */
};

/* The session that is there without having been made. */
#define SESSION_API_DEFAULT "default"

/* May it be given to a new one? [A-Za-z0-9._-]{1,128}, no leading dot, not a name that its directory has already. */
bool session_api_id_ok(const char *id);
/* Can one of others be shown as a name? */
bool session_api_id_shown(const char *id);

/*
 * A directory's path without "//", "." and "..", which is taken from the words alone and stays at the root: *out new, "/" or
 * without a slash at its end. -EINVAL: it is not absolute, -ENAMETOOLONG, -ENOMEM.
 */
int session_api_path(const char *path, char **out);

struct session_api_spec {
	const char *id;
	const char *cwd;         /* absolute; made if it is not there. NULL: /workspace */
	struct json_object *env; /* borrowed; NULL: none */
	int64_t timeout_ms;      /* of commands that bring none; <=0: none */
};
/* 0, -EEXIST (without a fault), or the errno of why not. */
int session_api_create(struct sandbox *sb, struct call *c, const struct session_api_spec *spec);

struct session_api_info {
	bool ended; /* its shell has; the next command starts another */
	int exit_code;
	char *cwd; /* as session_api_path makes it, whatever the server says */
};
void session_api_info_release(struct session_api_info *i);
#define AUTO_SESSION_INFO __attribute__((cleanup(session_api_info_release))) struct session_api_info

/* 0 and *out filled (session_api_info_release), -ENOENT (without a fault), or the errno of why not. */
int session_api_get(
	struct sandbox *sb, struct call *c, const char *id, struct session_api_info *out);
/* Those that can be names. -EPROTO: there are more than SESSION_API_LIST_MAX; -EINTR. */
int session_api_list(
	struct sandbox *sb, struct call *c, bool (*cb)(const char *id, void *arg), void *arg);
/* Ends everything that it started. 0 or -ENOENT (without a fault), or the errno of why not. */
int session_api_delete(struct sandbox *sb, struct call *c, const char *id);
/* Ends the command that runs, or the shell with it. Nothing to end is 0 as well. */
int session_api_interrupt(struct sandbox *sb, struct call *c, const char *id);
int session_api_kill(struct sandbox *sb, struct call *c, const char *id);

#endif

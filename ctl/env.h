/*
 * The environment that this mount gives to what it starts in a sandbox (env, env.json), and how variables are written in
 * control files.
 *
 * It holds for every later command, process, session and context that is started from here, under what the request brings itself; not
 * for sessions that exist. Kept per sandbox as long as the mount lasts, in memory alone. Values are nowhere but in these files and
 * in what is sent: no message, no log and no command line has them.
 *
 * Thread-safe. Objects that are returned belong to the caller alone.
 */
#ifndef CTL_ENV_H
#define CTL_ENV_H

#include "ctl.h"

struct json_object;

/* --- for whoever starts something --- */
/* New: what is set here, with the members of own (borrowed, may be NULL) put over it. *out NULL: there is nothing. 0 or -ENOMEM. */
int ctl_env_merge(struct sandbox *sb, struct json_object *own, struct json_object **out);
/* The same with KEY=VALUE strings, NULL-terminated; for ctl_env_free_pairs. */
int ctl_env_pairs(struct sandbox *sb, const char *const *own, char ***out);
void ctl_env_free_pairs(char **pairs);

/* --- how variables are written --- */
/*
 * What a text asks for, as new object: NAME to a string, or to null: unset. Lines KEY=VALUE, KEY alone unsets; empty lines and comments
 * do nothing. -EINVAL with a sentence that tells the line, not what it holds.
 */
int ctl_env_parse(struct call *c, const char *text, size_t n, struct json_object **changes);
/* Checks a request's "env": an object of strings and nulls whose names a shell can assign. what: for the message, "env". */
int ctl_env_check(struct call *c, struct json_object *env, const char *what);
/* New: base (NULL: empty) with the changes made. 0 or -ENOMEM. */
int ctl_env_changed(
	struct json_object *base, struct json_object *changes, struct json_object **out);
/* KEY=VALUE lines that can be written back; a value with newlines is a comment that names env.json. env may be NULL. */
void ctl_env_put(struct json_object *env, struct buf *out);

/* --- the rows env and env.json --- */
int ctl_env_show(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_env_show_json(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_env_store(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append);
int ctl_env_store_json(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append);

#endif

/*
 * Sessions: what its rooms share, and what others need who start something in one.
 *
 * A session here is an id with what this mount knows of it: the runs that were started in it from here, and the environment that it was given
 * from here. Its shell is the sandbox's; whether there is one is asked each time.
 */
#ifndef CTL_SESSIONS_H
#define CTL_SESSIONS_H

#include "ctl.h"
#include "runs.h"
#include "session_api.h"

struct json_object;
struct session_set;

struct session {
	struct ctl_runs_owner owner; /* first: sessions/ID is a directory with exec, runs/ and last */
	struct session *next;        /* the set's lock, as those below */
	struct session_set *set;     /* a reference */
	char *id;                    /* constant */
	unsigned refs;
	bool pinned;   /* the set holds a reference: the sandbox had it when it was last asked */
	uint64_t seen; /* when that was, by the set's clock */
	bool removed;  /* its name is another's now, or nobody's */
	struct json_object *env; /* NULL: none was given */
};

/* --- for whoever starts something in a session --- */
/*
 * It is there, or with `make` is made, with the environment of ctl/env; `default` is made always. 0 or an errno with a fault: -ESTALE for
 * one that is gone.
 */
int ctl_session_ready(struct sandbox *sb, struct call *c, const char *id, bool make);
/* The id of the session in whose directory a row with ref stands; NULL: in none. Borrowed, as long as ref. */
const char *ctl_session_at(const struct ctl_ref *ref);
/* Cancels what was started from here in all of them. */
void ctl_sessions_cancel(struct sandbox *sb);

/* --- sessions.c, for session_new.c and session_files.c --- */
/* Makes it in the sandbox with the environment of ctl/env under its own. *out a new reference (session_put); -EEXIST. */
int session_make_as(
	struct sandbox *sb, struct call *c, const struct session_api_spec *spec, struct session **out);
void session_put(void *object);
int session_bad_id(struct call *c, const char *id);
/* Makes the changes (env.h) in its shell, then here. */
int session_change_env(
	const struct ctl_ref *ref, struct call *c, struct session *s, struct json_object *changes);
/* put(env, out) with the set's lock held. */
void session_put_env(
	struct session *s, struct buf *out, void (*put)(struct json_object *env, struct buf *out));

/* session_new.c */
int session_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer);

extern const struct ctl_dir ctl_sessions_dir; /* sessions.c */
extern const struct ctl_dir ctl_session_dir;  /* session_files.c */

#endif

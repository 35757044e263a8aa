/*
 * Runs as the control tree keeps them: run.h's table, which ends may be told already, and the threads that wait for ends. One
 * for the sandbox itself, attached to it, and one for each session, which the session owns.
 *
 * A run has an end for the user when nothing cached before it is served any more (settled): until then `exit` is
 * empty, no write returns and no reader sees the end.
 */
#ifndef CTL_RUNS_H
#define CTL_RUNS_H

#include "ctl.h"
#include "run.h"

struct ctl_runs;

/* Those of commands outside of sessions. NULL: out of memory. Borrowed: lives as long as the sandbox. */
struct ctl_runs *ctl_runs_of(struct sandbox *sb);

/* What the object of a directory with exec, runs/ and last begins with. */
struct ctl_runs_owner {
	struct ctl_runs *runs; /* a reference */
};
/* Those of the directory that a row with ref stands in: of its object, or of the sandbox. NULL: out of memory. Borrowed, as long as ref. */
struct ctl_runs *ctl_runs_at(const struct ctl_ref *ref);

/* For a session of this name: one reference. The end is in two steps, as for the sandbox's: stop, which ends what runs, and put. */
int ctl_runs_new(struct sandbox *sb, const char *session, struct ctl_runs **out);
void ctl_runs_stop(struct ctl_runs *rs);
struct ctl_runs *ctl_runs_get(struct ctl_runs *rs);
void ctl_runs_put(struct ctl_runs *rs);
/* NULL: they are outside of sessions. Borrowed. */
const char *ctl_runs_session(const struct ctl_runs *rs);
/* Cancels every run that is running. */
void ctl_runs_cancel_all(struct ctl_runs *rs);

struct run_table *ctl_runs_table(struct ctl_runs *rs);

/*
 * Starts a begun or new run: waits for what was written before, then for the sandbox to accept it. 0 or an errno with a
 * fault. After 0 and after -EINTR ctl_runs_finish or ctl_runs_finish_behind is owed.
 */
int ctl_runs_start(struct ctl_runs *rs, struct call *c, struct run *r, const struct run_spec *spec);
/* Waits for its end and settles it. 0, or the errno of an unknown end with its fault; -EINTR: nothing is settled. */
int ctl_runs_finish(struct ctl_runs *rs, struct call *c, struct run *r);
/* The same without waiting: a thread of the room does. */
void ctl_runs_finish_behind(struct ctl_runs *rs, struct run *r);
/* A run that was begun and will not be started: the table would keep it for ever. Else nothing is done. */
void ctl_runs_abandon(struct run *r);
/* Its end may be told: it has ended or never ran, and is settled. */
bool ctl_runs_settled(struct ctl_runs *rs, struct run *r);

/*
 * A thread of the room: fn(rs, c, arg) runs with a call that is cancelled when the sandbox ends, and must return then.
 * The sandbox does not end before it has.
 */
int ctl_runs_thread(
	struct ctl_runs *rs, void (*fn)(struct ctl_runs *rs, struct call *c, void *arg), void *arg);

/* The newest run of exec.json; new reference or NULL. */
void ctl_runs_set_json(struct ctl_runs *rs, struct run *r);
struct run *ctl_runs_get_json(struct ctl_runs *rs);

/* The target of `last`. */
int ctl_runs_last(const struct ctl_ref *ref, struct call *c, struct buf *text);
/* `cancel [N]`, and all for kill-all. */
int ctl_runs_cancel(const struct ctl_ref *ref, struct call *c, int argc, char **argv);

#endif

/*
 * What the tree keeps of runs, and `last`: see runs.h. The directory runs/ is run_files.c's.
 *
 * Owns the run tables, the lists of runs whose end is not told yet, and the threads that wait for ends; at the sandbox's end it
 * cancels them and waits until they are gone. They hold no reference to the sandbox: they would keep it alive. The threads of
 * all sessions are in the sandbox's list: a session may be gone while the end of one of its runs is still waited for.
 */
#include "runs.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { THREAD_STACK = 256 * 1024 };

struct worker {
	struct worker *next;
	struct ctl_runs *rs; /* a reference, unless it is the sandbox's */
	struct call call;
	void (*fn)(struct ctl_runs *rs, struct call *c, void *arg);
	void *arg;
};

struct pending {
	struct pending *next;
	uint64_t number;
};

struct ctl_runs {
	_Atomic unsigned
		references; /* the owner's, each opening's, each session's to the sandbox's, each worker's */
	struct sandbox *sb;    /* borrowed */
	struct ctl_runs *root; /* the sandbox's, a reference; itself if it is that */
	char *session;         /* NULL: outside of sessions */
	struct run_table *table;
	_Atomic bool closing; /* set under the root's lock */
	pthread_mutex_t lock; /* covers what follows */
	pthread_cond_t idle;  /* a worker has gone */
	struct worker *workers;
	struct pending *pending;
	struct run *json;
};

/* --- life --- */

static int runs_new(struct sandbox *sb, struct ctl_runs **out)
{
	AUTO_FREE struct ctl_runs *rs = calloc(1, sizeof *rs);
	int err = rs ? run_table_new(sb, &rs->table) : -ENOMEM;
	if (err)
		return err;
	atomic_init(&rs->references, 1);
	rs->sb = sb;
	rs->root = rs;
	pthread_mutex_init(&rs->lock, NULL);
	pthread_cond_init(&rs->idle, NULL);
	*out = steal(rs);
	return 0;
}

struct ctl_runs *ctl_runs_get(struct ctl_runs *rs)
{
	atomic_fetch_add(&rs->references, 1);
	return rs;
}

void ctl_runs_put(struct ctl_runs *rs)
{
	if (atomic_fetch_sub(&rs->references, 1) != 1)
		return;
	run_table_free(rs->table);
	while (rs->pending) {
		struct pending *p = rs->pending;
		rs->pending = p->next;
		free(p);
	}
	if (rs->json)
		run_put(rs->json);
	pthread_cond_destroy(&rs->idle);
	pthread_mutex_destroy(&rs->lock);
	free(rs->session);
	if (rs->root != rs)
		ctl_runs_put(rs->root);
	free(rs);
}

static bool cancel_running(struct run *r, void *arg)
{
	(void)arg;
	if (run_state(r) == RUN_RUNNING)
		run_cancel(r);
	return true;
}

/* With the root's lock held. */
static bool has_workers(const struct ctl_runs *root, const struct ctl_runs *rs)
{
	const struct worker *w = root->workers;
	while (w && rs != root && w->rs != rs)
		w = w->next;
	return w;
}

void ctl_runs_stop(struct ctl_runs *rs)
{
	struct ctl_runs *root = rs->root;
	struct run *json;
	{
		AUTO_UNLOCK(&root->lock);
		atomic_store(&rs->closing, true);
		for (struct worker *w = root->workers; w; w = w->next)
			if (rs == root || w->rs == rs)
				call_cancel(&w->call);
		while (has_workers(root, rs))
			pthread_cond_wait(&root->idle, &root->lock);
	}
	{
		AUTO_UNLOCK(&rs->lock);
		json = steal(rs->json);
	}
	if (json)
		run_put(json);
	run_table_close(rs->table);
}

static void *root_make(struct sandbox *sb)
{
	struct ctl_runs *rs;
	return runs_new(sb, &rs) ? NULL : rs;
}

static void root_stop(void *data)
{
	ctl_runs_stop(data);
}

static void root_release(void *data)
{
	ctl_runs_stop(data);
	ctl_runs_put(data);
}

struct ctl_runs *ctl_runs_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, root_make, root_stop, root_release);
}

struct ctl_runs *ctl_runs_at(const struct ctl_ref *ref)
{
	const struct ctl_runs_owner *owner = ref->object;
	return owner ? owner->runs : ctl_runs_of(ref->sandbox);
}

int ctl_runs_new(struct sandbox *sb, const char *session, struct ctl_runs **out)
{
	struct ctl_runs *root = ctl_runs_of(sb), *rs;
	AUTO_FREE char *name = strdup(session);
	if (!root || !name)
		return -ENOMEM;
	int err = runs_new(sb, &rs);
	if (err)
		return err;
	rs->root = ctl_runs_get(root);
	rs->session = steal(name);
	*out = rs;
	return 0;
}

const char *ctl_runs_session(const struct ctl_runs *rs)
{
	return rs->session;
}

void ctl_runs_cancel_all(struct ctl_runs *rs)
{
	run_table_each(rs->table, cancel_running, NULL);
}

struct run_table *ctl_runs_table(struct ctl_runs *rs)
{
	return rs->table;
}

/* --- threads --- */

static void *worker_thread(void *arg)
{
	struct worker *w = arg;
	struct ctl_runs *root = w->rs->root;
	w->fn(w->rs, &w->call, w->arg);
	/* Before it leaves the list: until then the sandbox and its own runs are there. */
	if (w->rs != root)
		ctl_runs_put(w->rs);
	{
		AUTO_UNLOCK(&root->lock);
		struct worker **at = &root->workers;
		while (*at != w)
			at = &(*at)->next;
		*at = w->next;
		/* With the lock held: root_release may destroy everything as soon as it sees the list empty. */
		call_destroy(&w->call);
		free(w);
		pthread_cond_broadcast(&root->idle);
	}
	return NULL;
}

int ctl_runs_thread(
	struct ctl_runs *rs, void (*fn)(struct ctl_runs *rs, struct call *c, void *arg), void *arg)
{
	struct ctl_runs *root = rs->root;
	struct worker *w = calloc(1, sizeof *w);
	pthread_attr_t attr;
	pthread_t thread;
	if (!w)
		return -ENOMEM;
	*w = (struct worker){.rs = rs == root ? rs : ctl_runs_get(rs), .fn = fn, .arg = arg};
	call_init(&w->call, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&root->lock);
	int err = atomic_load(&root->closing) || atomic_load(&rs->closing)
				  ? ECANCELED
				  : pthread_create(&thread, &attr, worker_thread, w);
	if (!err) {
		w->next = root->workers;
		root->workers = w;
	}
	pthread_mutex_unlock(&root->lock);
	pthread_attr_destroy(&attr);
	if (err) {
		if (rs != root)
			ctl_runs_put(rs);
		call_destroy(&w->call);
		free(w);
	}
	return -err;
}

/* --- from the start of a run to the moment its end may be told --- */

static int pending_add(struct ctl_runs *rs, uint64_t number)
{
	struct pending *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	AUTO_UNLOCK(&rs->lock);
	*p = (struct pending){.next = rs->pending, .number = number};
	rs->pending = p;
	return 0;
}

static void pending_remove(struct ctl_runs *rs, uint64_t number)
{
	AUTO_UNLOCK(&rs->lock);
	for (struct pending **at = &rs->pending; *at; at = &(*at)->next) {
		struct pending *p = *at;
		if (p->number == number) {
			*at = p->next;
			free(p);
			return;
		}
	}
}

bool ctl_runs_settled(struct ctl_runs *rs, struct run *r)
{
	enum run_state state = run_state(r);
	if (state == RUN_RESERVED || state == RUN_RUNNING)
		return false;
	AUTO_UNLOCK(&rs->lock);
	for (struct pending *p = rs->pending; p; p = p->next)
		if (p->number == run_number(r))
			return false;
	return true;
}

int ctl_runs_start(struct ctl_runs *rs, struct call *c, struct run *r, const struct run_spec *spec)
{
	run_mark_begun(r);
	int err = pending_add(rs, run_number(r));
	if (err)
		return err;
	err = sandbox_barrier(rs->sb, c);
	if (!err)
		err = run_start(r, c, spec);
	else
		ctl_runs_abandon(r);
	if (err && err != -EINTR)
		pending_remove(rs, run_number(r));
	return err;
}

void ctl_runs_abandon(struct run *r)
{
	const struct run_spec nothing = {.command = ""};
	if (run_state(r) != RUN_RESERVED)
		return;
	/* A start that is cancelled before it begins sends nothing and closes the run. */
	run_cancel(r);
	(void)run_start(r, NULL, &nothing); /* it fails, as it is to */
}

static void settle(struct ctl_runs *rs, struct run *r)
{
	sandbox_invalidate(rs->sb);
	pending_remove(rs, run_number(r));
}

int ctl_runs_finish(struct ctl_runs *rs, struct call *c, struct run *r)
{
	int err = run_has_begun(r) ? run_wait(r, c) : 0;
	/* An interrupted wait, not a run that ended so: that one is at its end. */
	if (err == -EINTR && run_state(r) == RUN_RUNNING)
		return err;
	settle(rs, r);
	if (err)
		(void)call_fault(c, -err, NULL,
			"run %llu ended and its exit code is unknown: %s; see runs/%llu",
			(unsigned long long)run_number(r), strerror(-err), (unsigned long long)run_number(r));
	return err;
}

static void finish_thread(struct ctl_runs *rs, struct call *c, void *arg)
{
	struct run *r = arg;
	(void)ctl_runs_finish(rs, c, r); /* who asked is gone; the end is in runs/ */
	run_put(r);
}

void ctl_runs_finish_behind(struct ctl_runs *rs, struct run *r)
{
	if (ctl_runs_thread(rs, finish_thread, run_get(r)) == 0)
		return;
	/* No thread to wait with: the end is told when it comes, and what was cached goes now and by its time. */
	run_put(r);
	settle(rs, r);
}

void ctl_runs_set_json(struct ctl_runs *rs, struct run *r)
{
	struct run *old;
	{
		AUTO_UNLOCK(&rs->lock);
		old = rs->json;
		rs->json = atomic_load(&rs->closing) ? NULL : run_get(r);
	}
	if (old)
		run_put(old);
}

struct run *ctl_runs_get_json(struct ctl_runs *rs)
{
	AUTO_UNLOCK(&rs->lock);
	return rs->json ? run_get(rs->json) : NULL;
}

/* --- verbs and last --- */

int ctl_runs_cancel(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	int64_t number;
	if (!rs)
		return -ENOMEM;
	if (argc < 2) {
		ctl_runs_cancel_all(rs);
		return 0;
	}
	if (ctl_parse_number(argv[1], 1, INT64_MAX, &number))
		return call_fault(c, EINVAL, NULL, "cancel %s: not the number of a run; ls runs", argv[1]);
	struct run *r = run_table_find(rs->table, (uint64_t)number);
	bool running = r && run_state(r) == RUN_RUNNING;
	if (running)
		run_cancel(r);
	if (r)
		run_put(r);
	return running ? 0 : call_fault(c, ESRCH, NULL, "cancel %s: no such run is running", argv[1]);
}

int ctl_runs_last(const struct ctl_ref *ref, struct call *c, struct buf *text)
{
	struct ctl_runs *rs = ctl_runs_at(ref);
	(void)c;
	struct run *r = rs ? run_table_last(rs->table) : NULL;
	if (!r)
		return rs ? -ENOENT : -ENOMEM;
	buf_printf(text, "runs/%llu", (unsigned long long)run_number(r));
	run_put(r);
	return buf_error(text);
}

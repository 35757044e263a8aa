/*
 * The doubles of ctl_fakes.h. Counters are atomic: the threads of the tree use them.
 */
#include "ctl_fakes.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "ctl.h"
#include "processes.h"
#include "tree.h"

enum { PATIENCE_MS = 10000, RUNS_MAX = 64, WAITERS_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static bool wait_changed(void)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	return pthread_cond_timedwait(&changed, &lock, &until) == 0;
}

/* --- ops --- */

struct op {
	struct call call;
	pid_t pid;
	void (*parked)(struct op *, void *);
	void *parked_arg;
	bool answered;
	int err;
	char *data;
	size_t size;
};

struct op *fake_op(pid_t pid)
{
	struct op *op = calloc(1, sizeof *op);
	if (!op)
		abort();
	op->pid = pid ? pid : gettid();
	call_init(&op->call, op->pid);
	return op;
}

void fake_op_free(struct op *op)
{
	call_destroy(&op->call);
	free(op->data);
	free(op);
}

void fake_op_cancel(struct op *op)
{
	call_cancel(&op->call);
	pthread_mutex_lock(&lock);
	void (*fn)(struct op *, void *) = steal(op->parked);
	pthread_mutex_unlock(&lock);
	if (fn)
		fn(op, op->parked_arg);
}

bool fake_op_answered(struct op *op)
{
	AUTO_UNLOCK(&lock);
	while (!op->answered)
		if (!wait_changed())
			return false;
	return true;
}

bool fake_op_is_parked(struct op *op)
{
	AUTO_UNLOCK(&lock);
	return op->parked != NULL;
}

int fake_op_err(struct op *op)
{
	return op->err;
}

const char *fake_op_data(struct op *op, size_t *n)
{
	if (n)
		*n = op->size;
	return op->data ? op->data : "";
}

struct call *op_call(struct op *op)
{
	return &op->call;
}

pid_t op_pid(struct op *op)
{
	return op->pid;
}

static void answer(struct op *op, int err, const void *p, size_t n)
{
	AUTO_UNLOCK(&lock);
	if (op->answered)
		abort(); /* exactly once */
	op->err = err;
	op->size = n;
	op->data = malloc(n + 1);
	if (n)
		memcpy(op->data, p, n);
	op->data[n] = 0;
	op->answered = true;
	pthread_cond_broadcast(&changed);
}

void op_reply_err(struct op *op, int err)
{
	answer(op, err, NULL, 0);
}

void op_reply_data(struct op *op, const void *p, size_t n)
{
	answer(op, 0, p, n);
}

void op_reply_write(struct op *op, size_t n)
{
	(void)n;
	answer(op, 0, NULL, 0);
}

int op_park(struct op *op, void (*on_cancel)(struct op *op, void *arg), void *arg)
{
	if (call_cancelled(&op->call))
		return -EINTR;
	AUTO_UNLOCK(&lock);
	op->parked_arg = arg;
	op->parked = on_cancel;
	return 0;
}

bool op_unpark(struct op *op)
{
	AUTO_UNLOCK(&lock);
	return steal(op->parked) != NULL;
}

static _Atomic int polls_notified, polls_alive;

struct op_poll {
	int nothing;
};

struct op_poll *fake_poll(void)
{
	polls_alive++;
	return calloc(1, sizeof(struct op_poll));
}

int fake_poll_notified(void)
{
	return polls_notified;
}

int fake_poll_alive(void)
{
	return polls_alive;
}

void op_poll_notify(struct op_poll *p)
{
	(void)p;
	AUTO_UNLOCK(&lock);
	polls_notified++;
	pthread_cond_broadcast(&changed);
}

void op_poll_free(struct op_poll *p)
{
	if (p)
		polls_alive--;
	free(p);
}

bool node_filler_add(struct node_filler *f, const char *name, const struct stat *st,
	const struct node_entry *e, off_t next)
{
	(void)st;
	(void)next;
	if (f->count == f->room)
		return false;
	f->with_attributes = f->with_attributes || e;
	f->names[f->count++] = strdup(name);
	return true;
}

void fake_filler_clear(struct node_filler *f)
{
	for (unsigned i = 0; i < f->count; i++)
		free(f->names[i]);
	f->count = 0;
}

/* --- the sandbox --- */

struct attached {
	struct attached *next;
	const void *key;
	void *data;
	void (*release)(void *);
};

struct server {
	struct fault fault;
};

struct sandbox {
	struct server *server;
	_Atomic int references;
	struct attached *attached;
	struct fault fault;
};

_Atomic int fake_ready_err, fake_barrier_err, fake_api_err;
_Atomic int fake_readies, fake_barriers, fake_invalidations, fake_destroys, fake_retries;
char fake_sync[256], fake_api_last[256];
struct options fake_options;

void fake_world_make(struct fake_world *w)
{
	fake_ready_err = fake_barrier_err = fake_api_err = fake_start_err = 0;
	fake_readies = fake_barriers = fake_invalidations = fake_destroys = fake_retries = 0;
	fake_sync[0] = fake_api_last[0] = 0;
	fake_options = (struct options){
		.server = (char *)"local:", .uid = getuid(), .gid = getgid(), .output_max = 1 << 20};
	w->server = calloc(1, sizeof *w->server);
	w->sandbox = calloc(1, sizeof *w->sandbox);
	w->sandbox->server = w->server;
	w->sandbox->references = 1;
}

void fake_world_free(struct fake_world *w)
{
	sandbox_put(w->sandbox);
	fault_clear(&w->server->fault);
	free(w->server);
}

struct sandbox *sandbox_get(struct sandbox *sb)
{
	sb->references++;
	return sb;
}

void sandbox_put(struct sandbox *sb)
{
	if (--sb->references)
		return;
	while (sb->attached) {
		struct attached *a = sb->attached;
		sb->attached = a->next;
		a->release(a->data);
		free(a);
	}
	fault_clear(&sb->fault);
	free(sb);
}

const char *sandbox_name(const struct sandbox *sb)
{
	(void)sb;
	return "demo";
}

const struct options *sandbox_options(struct sandbox *sb)
{
	(void)sb;
	return &fake_options;
}

const struct options *server_options(struct server *s)
{
	(void)s;
	return &fake_options;
}

void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data))
{
	(void)stop; /* these sandboxes are not destroyed before their end */
	AUTO_UNLOCK(&lock);
	for (struct attached *a = sb->attached; a; a = a->next)
		if (a->key == key)
			return a->data;
	struct attached *a = calloc(1, sizeof *a);
	*a = (struct attached){sb->attached, key, make(sb), release};
	sb->attached = a;
	return a->data;
}

static int outcome(struct call *c, int err, const char *what)
{
	return err ? call_fault(c, -err, NULL, "%s", what) : 0;
}

int sandbox_ready(struct sandbox *sb, struct call *c)
{
	(void)sb;
	fake_readies++;
	return outcome(c, fake_ready_err, "still starting after 60 s");
}

int sandbox_barrier(struct sandbox *sb, struct call *c)
{
	(void)sb;
	fake_barriers++;
	return outcome(c, fake_barrier_err, "workspace/f could not be sent");
}

void sandbox_invalidate(struct sandbox *sb)
{
	(void)sb;
	fake_invalidations++;
}

int sandbox_api(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	(void)sb;
	(void)body;
	(void)reply;
	snprintf(fake_api_last, sizeof fake_api_last, "%s %s", method, path);
	return outcome(c, fake_api_err, "refused");
}

void sandbox_note_fault(struct sandbox *sb, const struct fault *f)
{
	AUTO_UNLOCK(&lock);
	fault_copy(&sb->fault, f);
}

void sandbox_last_fault(struct sandbox *sb, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &sb->fault);
}

void server_note_fault(struct server *s, const struct fault *f)
{
	AUTO_UNLOCK(&lock);
	fault_copy(&s->fault, f);
}

void server_last_fault(struct server *s, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &s->fault);
}

const char *sandbox_state_word(enum sandbox_state s)
{
	return s == SANDBOX_RUNNING ? "running" : "unknown";
}

void sandbox_describe_status(struct sandbox *sb, struct sandbox_status *out, struct buf *detail)
{
	(void)detail;
	sandbox_get_status(sb, out);
}

void sandbox_get_status(struct sandbox *sb, struct sandbox_status *out)
{
	(void)sb;
	*out = (struct sandbox_status){
		.state = SANDBOX_RUNNING, .boot = "abc", .since = {1700000000, 0}, .network = "none: why"};
}

void sandbox_describe_sync(struct sandbox *sb, struct buf *out)
{
	(void)sb;
	buf_str(out, fake_sync);
}

bool sandbox_sleeps(const struct sandbox *sb)
{
	(void)sb;
	return false;
}

void sandbox_sleep_get(struct sandbox *sb, struct sandbox_sleep *out)
{
	(void)sb;
	*out = (struct sandbox_sleep){.in_ms = -1};
}

void sandbox_sleep_set(struct sandbox *sb, const bool *keepalive, int64_t after_ms)
{
	(void)sb;
	(void)keepalive;
	(void)after_ms;
}

void sandbox_accept(struct sandbox *sb)
{
	(void)sb;
}

int sandbox_retry(struct sandbox *sb, struct call *c, const char *path)
{
	(void)sb;
	(void)c;
	(void)path;
	fake_retries++;
	return 0;
}

int sandbox_discard(struct sandbox *sb, struct call *c, const char *path)
{
	(void)sb;
	(void)c;
	(void)path;
	return 0;
}

void sandbox_drop_caches(struct sandbox *sb)
{
	(void)sb;
}

int server_destroy(struct server *s, struct call *c, const char *name, bool force)
{
	(void)s;
	(void)c;
	(void)name;
	(void)force;
	fake_destroys++;
	return 0;
}

struct sandbox *server_find(struct server *s, const char *name)
{
	(void)s;
	(void)name;
	return NULL;
}

void server_each(struct server *s, bool (*cb)(struct sandbox *sb, void *arg), void *arg)
{
	(void)s;
	(void)cb;
	(void)arg;
}

void server_describe(struct server *s, struct buf *out)
{
	(void)s;
	buf_str(out, "kind local\n");
}

const char *server_cannot(struct server *s, const char *name)
{
	(void)s;
	(void)name;
	return NULL;
}

void server_describe_stats(struct server *s, struct buf *out)
{
	(void)s;
	buf_str(out, "requests 1\n");
}

/* --- directories of other rooms --- */

int tree_node(struct sandbox *sb, enum tree_root which, struct node **out)
{
	(void)sb;
	(void)which;
	(void)out;
	return -ENOENT;
}

bool sandbox_has_server(struct sandbox *sb)
{
	(void)sb;
	return true;
}

int process_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	(void)ref;
	(void)c;
	(void)text;
	(void)n;
	(void)answer;
	return 0;
}

const struct ctl_dir ctl_processes_dir = {.help = "processes"};
const struct ctl_dir ctl_ports_dir = {.help = "ports"};
const struct ctl_dir ctl_ws_dir = {.help = "ws"};
const struct ctl_dir ctl_pty_dir = {.help = "pty"};

/* --- runs --- */

struct run {
	struct run_table *table;
	int references;
	uint64_t number, begun;
	enum run_state state;
	_Atomic bool over;
	bool cancelled, timed_out;
	int code;
	char *command, *cwd;
	char *env[16];
	char *input;
	size_t input_size;
	int64_t timeout_ms;
	struct timespec started, ended;
	struct fault fault;
	struct spool *spool;
};

struct run_table {
	struct run *runs[RUNS_MAX];
	unsigned count;
	uint64_t last, begun;
};

static struct run_table *table; /* the newest */
static struct run *started[RUNS_MAX];
static unsigned started_count;
static struct call *waiters[WAITERS_MAX];
_Atomic int fake_start_err;

int run_table_new(struct sandbox *sb, struct run_table **out)
{
	(void)sb;
	*out = calloc(1, sizeof **out);
	started_count = 0;
	table = *out;
	return 0;
}

static void run_unref(struct run *r) /* with lock */
{
	if (--r->references)
		return;
	for (unsigned i = 0; i < r->table->count; i++)
		if (r->table->runs[i] == r)
			r->table->runs[i] = r->table->runs[--r->table->count];
	spool_put(r->spool);
	for (int i = 0; i < 16; i++)
		free(r->env[i]);
	free(r->command);
	free(r->cwd);
	free(r->input);
	fault_clear(&r->fault);
	free(r);
}

void run_table_close(struct run_table *t)
{
	(void)t; /* nothing runs in a fake */
}

void run_table_free(struct run_table *t)
{
	for (unsigned i = 0; i < t->count;) {
		unsigned before = t->count;
		run_unref(t->runs[i]); /* the table's own, of those that began */
		if (t->count == before)
			i++;
	}
	free(t);
}

struct run *run_get(struct run *r)
{
	AUTO_UNLOCK(&lock);
	r->references++;
	return r;
}

void run_put(struct run *r)
{
	AUTO_UNLOCK(&lock);
	run_unref(r);
}

struct run *run_table_find(struct run_table *t, uint64_t number)
{
	AUTO_UNLOCK(&lock);
	for (unsigned i = 0; i < t->count; i++)
		if (t->runs[i]->number == number) {
			t->runs[i]->references++;
			return t->runs[i];
		}
	return NULL;
}

struct run *run_table_last(struct run_table *t)
{
	AUTO_UNLOCK(&lock);
	struct run *last = NULL;
	for (unsigned i = 0; i < t->count; i++)
		if (t->runs[i]->begun && (!last || t->runs[i]->begun > last->begun))
			last = t->runs[i];
	if (last)
		last->references++;
	return last;
}

void run_table_each(struct run_table *t, bool (*cb)(struct run *r, void *arg), void *arg)
{
	for (unsigned i = 0; i < t->count; i++)
		if (!cb(t->runs[i], arg))
			return;
}

int run_new(struct run_table *t, struct run **out)
{
	struct run *r = calloc(1, sizeof *r);
	if (spool_new("/tmp", 1 << 20, &r->spool))
		abort();
	AUTO_UNLOCK(&lock);
	r->table = t;
	r->references = 1;
	r->number = ++t->last;
	t->runs[t->count++] = r;
	*out = r;
	return 0;
}

void run_mark_begun(struct run *r)
{
	AUTO_UNLOCK(&lock);
	if (r->begun)
		return;
	r->begun = ++r->table->begun;
	r->references++;
}

int run_start(struct run *r, struct call *c, const struct run_spec *spec)
{
	AUTO_UNLOCK(&lock);
	int err = fake_start_err;
	if (r->cancelled || r->over) {
		r->over = true;
		r->state = RUN_REFUSED;
		return -EINTR;
	}
	fake_start_err = 0;
	if (err)
		r->state = RUN_REFUSED;
	if (err)
		return call_fault(c, -err, NULL, "the command cannot be started");
	r->state = RUN_RUNNING;
	r->command = strndup(spec->command, spec->size);
	r->cwd = spec->cwd ? strdup(spec->cwd) : NULL;
	for (int i = 0; spec->env && spec->env[i] && i < 16; i++)
		r->env[i] = strdup(spec->env[i]);
	r->input = malloc(spec->input_size + 1);
	if (spec->input_size)
		memcpy(r->input, spec->input, spec->input_size);
	r->input_size = spec->input_size;
	r->timeout_ms = spec->timeout_ms;
	clock_gettime(CLOCK_REALTIME, &r->started);
	started[started_count++] = r;
	pthread_cond_broadcast(&changed);
	return 0;
}

static bool is_over(void *arg)
{
	return ((struct run *)arg)->over;
}

int run_wait(struct run *r, struct call *c)
{
	int at = 0;
	{
		AUTO_UNLOCK(&lock);
		while (waiters[at])
			at++;
		waiters[at] = c;
	}
	int err = call_wait(c, is_over, r, -1);
	AUTO_UNLOCK(&lock);
	waiters[at] = NULL;
	if (!err && r->state == RUN_UNKNOWN) {
		err = -r->fault.err;
		fault_copy(&c->fault, &r->fault);
	}
	return err;
}

static void over(struct run *r)
{
	{
		AUTO_UNLOCK(&lock);
		clock_gettime(CLOCK_REALTIME, &r->ended);
		r->over = true;
		for (int i = 0; i < WAITERS_MAX; i++)
			if (waiters[i])
				call_wake(waiters[i]);
		pthread_cond_broadcast(&changed);
	}
	spool_end(r->spool);
}

void run_cancel(struct run *r)
{
	AUTO_UNLOCK(&lock);
	r->cancelled = true;
	pthread_cond_broadcast(&changed);
}

enum run_state run_state(struct run *r)
{
	AUTO_UNLOCK(&lock);
	return r->state;
}

bool run_has_begun(struct run *r)
{
	enum run_state state = run_state(r);
	return state != RUN_RESERVED && state != RUN_REFUSED;
}

uint64_t run_number(const struct run *r)
{
	return r->number;
}

int run_exit(struct run *r, bool *timed_out)
{
	AUTO_UNLOCK(&lock);
	if (timed_out)
		*timed_out = r->timed_out;
	return r->code;
}

int64_t fake_run_timeout_ms(struct run *r)
{
	return r->timeout_ms;
}

const char *run_command(struct run *r)
{
	AUTO_UNLOCK(&lock);
	return r->command ? r->command : "";
}

void run_times(struct run *r, struct timespec *from, struct timespec *to)
{
	AUTO_UNLOCK(&lock);
	*from = r->started;
	*to = r->ended;
}

struct spool *run_spool(struct run *r)
{
	return r->spool;
}

void run_fault(struct run *r, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &r->fault);
}

struct run *fake_started(unsigned nth)
{
	AUTO_UNLOCK(&lock);
	while (started_count <= nth)
		if (!wait_changed())
			return NULL;
	return started[nth];
}

const char *fake_run_cwd(struct run *r)
{
	return r->cwd;
}

const char *fake_run_env(struct run *r, unsigned i)
{
	return r->env[i];
}

const void *fake_run_input(struct run *r, size_t *n)
{
	*n = r->input_size;
	return r->input;
}

void fake_run_print(struct run *r, int stream, const char *text, size_t n)
{
	if (spool_append(r->spool, stream == 2 ? SPOOL_STDERR : SPOOL_STDOUT, text, n))
		abort();
}

void fake_run_end(struct run *r, int code, bool timed_out)
{
	pthread_mutex_lock(&lock);
	r->state = RUN_ENDED;
	r->code = code;
	r->timed_out = timed_out;
	pthread_mutex_unlock(&lock);
	over(r);
}

void fake_run_lose(struct run *r, int err)
{
	pthread_mutex_lock(&lock);
	r->state = RUN_UNKNOWN;
	r->fault.err = err;
	r->fault.message = strdup("the link broke while it ran");
	pthread_mutex_unlock(&lock);
	over(r);
}

bool fake_run_cancelled(struct run *r)
{
	AUTO_UNLOCK(&lock);
	while (!r->cancelled)
		if (!wait_changed())
			return false;
	return true;
}

bool fake_run_over(struct run *r)
{
	return r->over;
}

struct run *fake_last_run(void)
{
	struct run *r = run_table_last(table);
	if (r)
		run_put(r);
	return r;
}

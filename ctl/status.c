/*
 * status, sync and error of a sandbox, error of the server, and how times and faults read as text. They answer
 * from what is known here: no request is sent, nothing is woken.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"
#include "shown.h"

void ctl_put_time(struct buf *out, const struct timespec *t)
{
	struct tm tm;
	char text[64]; /* of a time, not of anything from outside */
	if (!gmtime_r(&t->tv_sec, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm))
		return;
	buf_printf(out, "%s.%03ldZ", text, t->tv_nsec / 1000000);
}

/* `name value`, the value on one line; nothing where it is not known. */
static void put_line(struct buf *out, const char *name, const char *value)
{
	if (!value || !*value)
		return;
	buf_printf(out, "%s ", name);
	shown_add(out, value, strlen(value), SHOWN_KEEP);
	buf_char(out, '\n');
}

static void put_fault(struct buf *out, const struct fault *f)
{
	if (!f->err)
		return; /* nothing has failed */
	put_line(out, "code", f->code);
	put_line(out, "errno", fault_errno_name(f->err));
	put_line(out, "message", f->message ? f->message : strerror(f->err));
	put_line(out, "suggestion", f->suggestion);
	put_line(out, "operation", f->operation);
	put_line(out, "path", f->path);
	buf_str(out, "time ");
	ctl_put_time(out, &f->when);
	buf_char(out, '\n');
	if (f->pid)
		buf_printf(out, "pid %d\n", f->pid);
	put_line(out, "retry", f->retry ? "yes" : "no");
}

int ctl_show_error(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct fault f = {0};
	(void)c;
	if (ref->sandbox)
		sandbox_last_fault(ref->sandbox, &f);
	else
		server_last_fault(ref->server, &f);
	put_fault(out, &f);
	fault_clear(&f);
	return 0;
}

/* When this mount lets go of it, if nobody uses it until then; the server then puts it to sleep in its own time. */
static void put_sleep(struct sandbox *sb, struct buf *out)
{
	struct sandbox_sleep sleep;
	sandbox_sleep_get(sb, &sleep);
	if (sleep.in_ms < 0) {
		buf_str(out, "sleeps-at never\n");
	} else {
		struct timespec at;
		clock_gettime(CLOCK_REALTIME, &at);
		at.tv_sec += sleep.in_ms / 1000;
		buf_str(out, "sleeps-at ");
		ctl_put_time(out, &at);
		buf_char(out, '\n');
	}
	put_line(out, "keepalive", sleep.keepalive ? "on" : "off");
}

int ctl_show_status(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct sandbox_status s = {0};
	AUTO_BUF detail = BUF_INIT;
	(void)c;
	sandbox_describe_status(ref->sandbox, &s, &detail);
	buf_printf(out, "%s\n", sandbox_state_word(s.state));
	put_line(out, "id", *s.id ? s.id : sandbox_name(ref->sandbox));
	put_line(out, "server", sandbox_options(ref->sandbox)->server);
	put_line(out, "boot", s.boot);
	if (s.since.tv_sec) {
		buf_str(out, "since ");
		ctl_put_time(out, &s.since);
		buf_char(out, '\n');
	}
	put_sleep(ref->sandbox, out);
	put_line(out, "network", s.network);
	put_line(out, "detail", detail.data ? detail.data : "");
	return 0;
}

int ctl_show_sync(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	sandbox_describe_sync(ref->sandbox, out);
	return 0;
}

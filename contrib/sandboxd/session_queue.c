/*
 * The commands of a session and the shell that runs them; see session.h. The thread of the command whose turn it is
 * starts the shell, speaks to it and listens; the reaper tells when the shell is dead.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "environment.h"
#include "script.h"
#include "session_internal.h"
#include "text.h"

enum { PIECE = 16 << 10, NUDGE_LOST_MS = 500, INTERRUPT_PAUSE_MS = 200 };

/* --- what the shell says --- */

bool session_hears(struct session *s)
{
	char piece[PIECE];
	while (s->answers >= 0) {
		ssize_t n = read(s->answers, piece, sizeof piece);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		/* Out of memory for what it says is as if it said nothing any more. */
		if (n <= 0 || shell_answers_add(&s->told, piece, (size_t)n) < 0) {
			close(s->answers);
			s->answers = -1;
		}
	}
	return s->answers >= 0;
}

void session_note_place(struct session *s)
{
	(void)session_hears(s); /* a shell that has closed its end has said what it had to say */
	if (s->told.changed) {
		AUTO_BUF b = BUF_INIT;
		buf_add(&b, s->told.environment.data, s->told.environment.size);
		if (!buf_error(&b)) {
			struct buf old = s->environment;
			s->environment = b;
			b = old;
			s->told.changed = false;
		}
	}
	if (!s->here)
		return;
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/%d/cwd", (int)s->shell.pid);
	ssize_t n = readlink(link, path, sizeof path);
	/* A directory that was removed, or a name that is too long, leaves the one before. */
	static const char gone[] = " (deleted)";
	if (n <= 0 || n == sizeof path ||
		(n > (ssize_t)strlen(gone) && memcmp(path + n - strlen(gone), gone, strlen(gone)) == 0))
		return;
	char *copy = strndup(path, (size_t)n);
	if (copy) {
		free(s->cwd);
		s->cwd = copy;
	}
}

/* --- its life --- */

/*
 * Who is left of it is remembered, for the end of the session: its session and group, and what it had adopted before its last command.
 * Only what that command itself sent into a session of its own is lost sight of.
 */
static void on_ending(struct child *child)
{
	struct session *s = (struct session *)((char *)child - offsetof(struct session, shell));
	if (!proc_set_alive(&s->left))
		proc_set_release(&s->left);
	proc_hold(&s->left, s->older, s->older_count);
	proc_signal_tree(&s->left, child->pid, true, s->deleted ? SIGKILL : 0);
}

static void on_ended(struct child *child)
{
	struct session *s = (struct session *)((char *)child - offsetof(struct session, shell));
	(void)session_hears(s); /* its last words */
	s->here = false;
	s->ended = true;
	s->exit_code = WIFSIGNALED(child->wait_status) ? 128 + WTERMSIG(child->wait_status)
												   : WEXITSTATUS(child->wait_status);
	if (s->words >= 0)
		close(s->words);
	s->words = -1;
	if (s->first)
		command_wake(s->first);
	pthread_cond_broadcast(&s->changed);
}

static void on_release(struct child *child)
{
	session_put((struct session *)((char *)child - offsetof(struct session, shell)));
}

void session_no_shell(struct session *s)
{
	s->shell = (struct child){.lock = &s->lock,
		.reaped = true,
		.ending = on_ending,
		.ended = on_ended,
		.release = on_release};
}

void session_kill_shell(struct session *s)
{
	s->killed = true;
	kill(s->shell.pid, SIGKILL);
}

void session_end_shell(struct session *s)
{
	proc_signal_tree(&s->left, s->shell.pid, s->here, SIGKILL);
}

/* The ends of its two pipes: [0] ours, [1] the shell's, for its input and its output. */
struct ends {
	int words[2], answers[2];
};

static void ends_close(struct ends *e)
{
	for (int i = 0; i < 2; i++) {
		if (e->words[i] >= 0)
			close(e->words[i]);
		if (e->answers[i] >= 0)
			close(e->answers[i]);
	}
}

static int ends_open(struct ends *e)
{
	*e = (struct ends){{-1, -1}, {-1, -1}};
	int pair[2];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	e->words[0] = pair[1];
	e->words[1] = pair[0];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	e->answers[0] = pair[0];
	e->answers[1] = pair[1];
	if (fcntl(e->words[0], F_SETFL, O_NONBLOCK) < 0 ||
		fcntl(e->answers[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static bool is_bash(const struct server *server)
{
	return strstr(server->shell, "bash") != NULL;
}

static int shell_fork(struct session *s, struct ends *e, const char *cwd, const char *const *env)
{
	struct server *server = s->server;
	const char *const for_bash[] = {
		server->shell, "--norc", "--noprofile", "--noediting", "-i", NULL};
	const char *const for_sh[] = {server->shell, "-i", NULL};
	AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return -errno;
	struct spawn spawn = {.argv = is_bash(server) ? for_bash : for_sh,
		.env = env,
		.cwd = cwd,
		.in = e->words[1],
		.out = e->answers[1],
		.err = null,
		.processes = server->processes,
		.files = server->own_files,
		.adopts = true};
	int status;
	/* Until it is reaped it holds a reference; it may be reaped at once. */
	session_get(s);
	int err = commands_fork_child(server->commands, &s->shell, &spawn, &status);
	if (err < 0) {
		session_put(s);
		return err;
	}
	err = spawn_outcome(status);
	if (!err)
		return 0;
	/* What could not become the shell ends by itself; the next try must find its place free. */
	AUTO_UNLOCK(&s->lock);
	while (!s->shell.reaped)
		pthread_cond_wait(&s->changed, &s->lock);
	return err > 0 ? -err : err;
}

static int shell_start(struct session *s)
{
	AUTO_BUF env = BUF_INIT;
	AUTO_FREE char *cwd = NULL;
	AUTO_FREE const char **words = NULL;
	struct ends e;
	{
		AUTO_UNLOCK(&s->lock);
		if (s->deleted)
			return -ESHUTDOWN;
		session_note_place(s); /* what the one before said last */
		cwd = strdup(s->cwd);
		if (!cwd || environment_make(&env, s->server, &s->environment, cwd, NULL) < 0)
			return -ENOMEM;
	}
	int err = script_environment(&env, &words);
	if (!err) {
		err = ends_open(&e);
		if (!err)
			err = shell_fork(s, &e, cwd, words);
		/* Its directory may have gone. */
		if (err == -ENOENT || err == -ENOTDIR || err == -EACCES)
			err = shell_fork(s, &e, s->server->workspace, words);
		if (err)
			ends_close(&e);
	}
	if (err)
		return err;
	close(e.words[1]);
	close(e.answers[1]);
	AUTO_UNLOCK(&s->lock);
	s->words = e.words[0];
	if (s->answers >= 0)
		close(s->answers);
	s->answers = e.answers[0];
	s->here = !s->shell.reaped;
	s->killed = false;
	buf_clear(&s->told.token);
	buf_clear(&s->told.incoming);
	if (s->deleted)
		session_end_shell(s);
	const char *greeting = shell_greeting(is_bash(s->server));
	/* A fresh pipe has room for it; a shell that has gone already is found out by who waits. */
	(void)!write(s->words, greeting, strlen(greeting));
	return 0;
}

/* --- the queue --- */

void session_join(struct session *s, struct command *c)
{
	AUTO_UNLOCK(&s->lock);
	c->next_queued = NULL;
	*s->last = c;
	s->last = &c->next_queued;
}

void session_leave(struct session *s, struct command *c)
{
	AUTO_UNLOCK(&s->lock);
	for (struct command **at = &s->first; *at; at = &(*at)->next_queued)
		if (*at == c) {
			*at = c->next_queued;
			if (!*at)
				s->last = at;
			break;
		}
	if (s->first)
		command_wake(s->first);
}

int session_turn(struct session *s, struct command *c)
{
	for (;;) {
		{
			AUTO_UNLOCK(&s->lock);
			if (s->deleted)
				return -ESHUTDOWN;
			if (s->first == c)
				return 0;
		}
		if (command_cancel_asked(c))
			return -ECANCELED;
		command_sleep(c);
	}
}

static int say(struct session *s, const struct buf *words)
{
	if (buf_error(words) < 0)
		return -ENOMEM;
	if (s->words < 0)
		return -EPIPE;
	/* Shorter than what a pipe takes in one piece or not at all, but for absurd names of directories. */
	ssize_t n = write(s->words, words->data, words->size);
	return n == (ssize_t)words->size ? 0 : n < 0 ? -errno : -EIO;
}

int session_run(struct session *s, struct command *c, const char *work, pid_t *pid, int *report)
{
	bool here;
	{
		AUTO_UNLOCK(&s->lock);
		here = s->here && !s->killed && session_hears(s);
		/* One that cannot speak any more is of no use. */
		if (s->here && !here)
			session_kill_shell(s);
		while (s->here && !here)
			pthread_cond_wait(&s->changed, &s->lock);
	}
	if (!here) {
		int err = shell_start(s);
		if (err < 0)
			return err;
	}
	AUTO_BUF words = BUF_INIT;
	AUTO_UNLOCK(&s->lock);
	struct proc_name *older = NULL;
	ssize_t count = s->here ? proc_children(s->shell.pid, &older) : 0;
	if (count < 0)
		return (int)count;
	free(s->older);
	s->older = older;
	s->older_count = (size_t)count;
	s->asked = false;
	s->nudged = 0;
	s->interrupt_at =
		0; /* the pause is one command's own: this one's child would die of an INT that its shell was not told */
	session_note_place(s);
	shell_command_lines(&words, work, ++s->number, c->own_cwd,
		c->checked && is_bash(s->server) ? s->server->shell : NULL);
	s->told.changed = false;
	int err = say(s, &words);
	/* A shell that has died meanwhile has this command for its last one: session_look tells. */
	if (err < 0 && err != -EPIPE)
		return err;
	*pid = s->shell.pid;
	*report = s->answers;
	return 0;
}

int session_look(struct session *s, struct command *c, int *report, int *status, bool *lost)
{
	AUTO_UNLOCK(&s->lock);
	if (s->first != c)
		return 0;
	/* A shell that has closed its end may have become another program by `exec`; session_nudge tells that from one that is lost. */
	(void)session_hears(s);
	*report = s->answers;
	*lost = false;
	if (s->told.number == s->number) {
		*status = (s->told.status & 0xff) << 8;
		session_note_place(s);
		return 1;
	}
	if (!s->here) {
		*status = s->shell.wait_status;
		*lost = WIFSIGNALED(*status);
		return 1;
	}
	return 0;
}

void session_nudge(struct session *s, struct command *c)
{
	AUTO_BUF words = BUF_INIT;
	int unread = 0;
	AUTO_UNLOCK(&s->lock);
	/* What it has not read yet it will read: then it tells. */
	if (s->first != c || !s->here || s->words < 0 || ioctl(s->words, FIONREAD, &unread) < 0 ||
		unread)
		return;
	int64_t now = text_monotonic_ms();
	(void)session_hears(s);
	if (s->told.number == s->number)
		return;
	if (s->asked && !s->nudged) {
		/* It has just read what it was asked: an answer may be on its way. */
		s->nudged = now;
	} else if (!s->asked) {
		/* An interrupt may have taken the line that asks for the end out of its buffer. */
		shell_report_line(&words, s->number);
		s->asked = say(s, &words) == 0;
	} else if (now - s->nudged > NUDGE_LOST_MS) {
		/* It reads and does not do what it reads, or cannot tell: something took its descriptors. */
		session_kill_shell(s);
	}
}

bool session_signal(struct session *s, struct command *c, struct proc_set *set, int sig, bool shell)
{
	AUTO_UNLOCK(&s->lock);
	(void)session_hears(s); /* what it says last */
	/* Only of this command: by now the shell may run another. */
	bool runs = s->first == c && s->here && s->told.number != s->number && c->pid == s->shell.pid;
	pid_t told = 0;
	int64_t now = text_monotonic_ms();
	if (runs && shell && sig == SIGKILL) {
		session_kill_shell(s);
		told = s->shell.pid;
	} else if (runs && shell && s->told.begun == s->number && now >= s->interrupt_at &&
			   session_interrupt_shell(s)) {
		/*
		 * The shell drops its work only if its child has died of INT too. Jobs in the background are deaf to it in a shell without
		 * job control. Not again before the shell had the time to become deaf.
		 */
		s->interrupt_at = text_monotonic_ms() + INTERRUPT_PAUSE_MS;
		told = s->shell.pid;
	}
	/* Without its shell a child is not interrupted. */
	if (runs && shell && sig == SIGINT && !told)
		sig = 0;
	if (set)
		proc_signal_below(
			set, runs ? s->shell.pid : 0, s->older, s->older_count, sig, sig == SIGINT ? told : 0);
	return told;
}

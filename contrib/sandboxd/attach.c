/* The attach mode; see attach.h. One thread. */
#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "mux.h"
#include "tree_remove.h"

#define WORKSPACE "/workspace"

enum { START_S = 10, READY_FD = 3, DIRECTORY_MODE = 0700, WORKSPACE_MODE = 0755 };

bool attach_is_wanted(const char *name)
{
	static const char end[] = "/attach";
	size_t n = name ? strlen(name) : 0;
	return n >= sizeof end - 1 && strcmp(name + n - (sizeof end - 1), end) == 0;
}

/* One line to who waits at the other end. */
static int refuse(const char *what, int err)
{
	AUTO_BUF line = BUF_INIT;
	buf_printf(&line, MUX_REFUSAL "%s%s%s\n", what, err ? ": " : "", err ? strerror(-err) : "");
	if (buf_error(&line) == 0)
		(void)!write(STDOUT_FILENO, line.data, line.size); /* nobody else is there to be told */
	return EXIT_FAILURE;
}

/* --- the terminal --- */

/* Every byte passes as it is, at once. */
static int terminal_make_raw(int fd)
{
	struct termios t;
	/* From a background group it would stop us. */
	signal(SIGTTOU, SIG_IGN);
	if (tcgetattr(fd, &t) < 0)
		return -errno;
	cfmakeraw(&t);
	t.c_iflag &= ~(tcflag_t)(IXON | IXOFF | IXANY | INPCK | IUTF8 | IMAXBEL);
	t.c_cflag |= CREAD | CLOCAL;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	return tcsetattr(fd, TCSANOW, &t) < 0 ? -errno : 0;
}

static int make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int link_poll_fd(void *arg)
{
	(void)arg;
	return STDIN_FILENO;
}

static short link_poll_events(void *arg, int wants_write)
{
	(void)arg;
	return wants_write ? POLLIN | POLLOUT : POLLIN;
}

/* A terminal whose other end is closed says EIO. */
static int link_error(int err)
{
	if (err == EINTR)
		return -EAGAIN;
	return err == EIO ? -EPIPE : -err;
}

static int link_read(void *arg, void *p, size_t size, size_t *n)
{
	(void)arg;
	ssize_t r = read(STDIN_FILENO, p, size);
	if (r < 0)
		return link_error(errno);
	*n = (size_t)r;
	return r ? 0 : -EPIPE;
}

static int link_write(void *arg, const void *p, size_t size, size_t *n)
{
	(void)arg;
	if (!size)
		return 0;
	ssize_t r = write(STDOUT_FILENO, p, size);
	if (r < 0)
		return link_error(errno);
	*n = (size_t)r;
	return 0;
}

/* --- the daemon --- */

static int daemon_connect(void *arg)
{
	const struct sockaddr_un *address = arg;
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
		return -errno;
	return steal_fd(&fd);
}

static bool daemon_answers(const struct sockaddr_un *address)
{
	AUTO_FD int fd = daemon_connect((void *)address);
	return fd >= 0 || fd == -EAGAIN; /* so many are before us that it must be there */
}

/* What belongs to this terminal, and to a shell on it. */
static void environment_leave_terminal(void)
{
	static const char *const names[] = {"TERM", "COLORTERM", "TERMCAP", "COLUMNS", "LINES", "PS1",
		"PS2", "PS4", "PROMPT_COMMAND", "SHLVL", "SHELL", "OLDPWD", "_"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
}

static void close_from(int first)
{
	if (close_range((unsigned)first, ~0U, 0) == 0)
		return;
	long most = sysconf(_SC_OPEN_MAX);
	for (int fd = first; fd < (most > 0 && most < 65536 ? most : 65536); fd++)
		close(fd);
}

/* The daemon to be, after the second fork. ready: the descriptor that tells that it serves. */
static void daemon_exec(const char *directory, char *const *argv, int ready)
{
	int null = open("/dev/null", O_RDWR);
	int log = openat(AT_FDCWD, "log", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
		dup2(log < 0 ? null : log, STDERR_FILENO) < 0)
		_exit(EXIT_FAILURE);
	/* dup2 of a descriptor onto itself keeps its close-on-exec. */
	if (ready == READY_FD ? fcntl(ready, F_SETFD, 0) < 0 : dup2(ready, READY_FD) < 0)
		_exit(EXIT_FAILURE);
	close_from(READY_FD + 1);
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	environment_leave_terminal();
	umask(022);
	if (chdir("/") == 0)
		execve(argv[0], argv, environ);
	fprintf(stderr, "%s: %s: %s\n", directory, argv[0], strerror(errno));
	_exit(EXIT_FAILURE);
}

/* Forks twice, so that it is nobody's child here and in no session of the terminal. */
static int daemon_fork(const char *directory, char *const *argv, int ready)
{
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (!child) {
		pid_t daemon = setsid() < 0 ? -1 : fork();
		if (!daemon)
			daemon_exec(directory, argv, ready);
		_exit(daemon < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EAGAIN;
}

static int make_directory(const char *path, mode_t mode)
{
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

/* What one that was killed has left there is nobody's any more. */
static int make_spool(const char *path)
{
	int err = make_directory(path, DIRECTORY_MODE);
	if (err)
		return err;
	AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : tree_empty(fd);
}

/* The log's last line: why it did not start. */
static int refuse_with_log(void)
{
	char text[512];
	AUTO_FD int fd = open("log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	text[n < 0 ? 0 : n] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	AUTO_BUF why = BUF_INIT;
	buf_printf(&why, "the server in the sandbox did not start%s%s", *text ? ": " : "", text);
	return refuse(buf_error(&why) ? "out of memory" : why.data, 0);
}

/* Starts it and waits until it serves. 0 or the exit status. */
static int daemon_start(const char *directory)
{
	AUTO_FREE char *program = NULL;
	AUTO_FREE char *listener = NULL;
	AUTO_FREE char *spool = NULL;
	if (asprintf(&program, "%s/sandboxd", directory) < 0 ||
		asprintf(&listener, "unix:%s/socket", directory) < 0 ||
		asprintf(&spool, "%s/spool", directory) < 0)
		return refuse("out of memory", 0);
	int err = make_directory(WORKSPACE, WORKSPACE_MODE);
	if (err)
		return refuse("cannot make " WORKSPACE, err);
	err = make_spool(spool);
	if (err)
		return refuse(spool, err);
	int pair[2];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return refuse("cannot start the server in the sandbox", -errno);
	AUTO_FD int told = pair[0];
	AUTO_FD int tells = pair[1];
	char *const argv[] = {program, "--listen", listener, "--workspace", WORKSPACE, "--spool", spool,
		"--ready", "3", "--inherit-environment", NULL};
	err = daemon_fork(directory, argv, tells);
	if (err)
		return refuse("cannot start the server in the sandbox", err);
	close(steal_fd(&tells));
	char c;
	/* The alarm of start_once ends this. */
	ssize_t n = read(told, &c, 1);
	if (n < 0)
		return refuse("the server in the sandbox does not answer", -errno);
	return n ? 0 : refuse_with_log();
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* The daemon runs after it. One of several that come at once starts it. 0 or the exit status. */
static int start_once(const char *directory, const struct sockaddr_un *address)
{
	if (daemon_answers(address))
		return 0;
	AUTO_FD int lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0)
		return refuse("lock", -errno);
	/* Without SA_RESTART, so that what waits ends. */
	struct sigaction action = {.sa_handler = on_alarm};
	sigaction(SIGALRM, &action, NULL);
	alarm(START_S);
	if (flock(lock, LOCK_EX) < 0)
		return refuse("another start of the server in the sandbox hangs", -errno);
	alarm(START_S);
	int status = daemon_answers(address) ? 0 : daemon_start(directory);
	alarm(0);
	return status;
}

/* Where this program lies. The caller frees. */
static char *own_directory(void)
{
	char *path = realpath("/proc/self/exe", NULL);
	char *slash = path ? strrchr(path, '/') : NULL;
	if (slash)
		slash[slash == path] = '\0';
	return path;
}

struct daemon {
	const char *directory;
	const struct sockaddr_un *address;
};

/*
 * One that has ended, killed for want of memory say, is started again. If that fails the reason breaks the link, and the next
 * terminal says it again.
 */
static int daemon_reach(void *arg)
{
	const struct daemon *d = arg;
	int fd = daemon_connect((void *)d->address);
	if (fd != -ECONNREFUSED && fd != -ENOENT)
		return fd;
	return start_once(d->directory, d->address) == 0 ? daemon_connect((void *)d->address) : fd;
}

static int serve(const char *directory, const struct sockaddr_un *address)
{
	struct daemon d = {directory, address};
	if (write(STDOUT_FILENO, MUX_GREETING, sizeof MUX_GREETING - 1) != sizeof MUX_GREETING - 1)
		return EXIT_FAILURE;
	if (make_nonblocking(STDIN_FILENO) || make_nonblocking(STDOUT_FILENO))
		return EXIT_FAILURE;
	struct mux_spec spec = {
		.carrier = {.poll_fd = link_poll_fd,
			.poll_events = link_poll_events,
			.read = link_read,
			.write = link_write},
		.listener = -1,
		.connect = daemon_reach,
		.connect_arg = &d,
		.stop_fd = -1,
	};
	(void)mux_run(&spec); /* however the link ended, there is nobody to tell */
	return EXIT_SUCCESS;
}

int attach_main(void)
{
	signal(SIGPIPE, SIG_IGN);
	/* The other end of a terminal, inherited from who made it, would keep the link's end from us. */
	close_from(STDERR_FILENO + 1);
	int err = terminal_make_raw(STDIN_FILENO);
	if (err)
		return refuse("standard input is no terminal", err);
	if (!isatty(STDOUT_FILENO))
		return refuse("standard output is no terminal", 0);
	AUTO_FREE char *directory = own_directory();
	if (!directory || chdir(directory) < 0)
		return refuse("cannot find its own directory", -errno);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory) >=
		sizeof address.sun_path)
		return refuse("the name of its directory is too long for a socket", 0);
	int status = start_once(directory, &address);
	return status ? status : serve(directory, &address);
}

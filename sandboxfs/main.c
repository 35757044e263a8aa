/*
 * sandboxfs: mounts sandboxes. The life of the program: command line, background, mount, service, end.
 *
 * Order matters: the program goes to the background first, and only then makes threads and curl handles. The
 * parent waits for one line: empty when the mount works, else the sentence that says why not.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "front.h"
#include "http.h"
#include "log.h"
#include "mount.h"
#include "mount_table.h"
#include "options.h"
#include "root.h"
#include "sandbox.h"
#include "shown.h"
#include "version.h"

enum { FILES_MAX = 65536 };

struct program {
	struct options options;
	struct http *http;
	struct server *server;
	struct front *front;
	sigset_t stops;
	pthread_t signals;
	int announced; /* tells sandboxfs -u who we are */
	int lifeline;  /* of auto_unmount; -1: none */
	int lock;      /* of the mount point, until the mount is made; -1: none */
	bool mounted;
};

static void do_nothing(int sig)
{
	(void)sig;
}

/* The signals that end the program are taken by one thread; SIGUSR1 only interrupts a read(2) (loop.c). */
static void set_signals(struct program *p)
{
	struct sigaction nothing = {.sa_handler = do_nothing};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	sigemptyset(&p->stops);
	sigaddset(&p->stops, SIGTERM);
	sigaddset(&p->stops, SIGINT);
	sigaddset(&p->stops, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &p->stops, NULL);
	sigaction(SIGUSR1, &nothing, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

/* A reader that blocks holds a socket or two, and the usual 1024 are soon used up. Sandboxes get what we were given. */
static void raise_files(struct program *p)
{
	struct rlimit *given = &p->options.files, more;

	if (getrlimit(RLIMIT_NOFILE, given) < 0)
		return;
	more = *given;
	if (more.rlim_cur < FILES_MAX)
		more.rlim_cur = more.rlim_max < FILES_MAX ? more.rlim_max : FILES_MAX;
	(void)setrlimit(RLIMIT_NOFILE, &more); /* with fewer it works as well */
}

/* --- unsent writes at the end --- */

static bool drain_one(struct sandbox *sb, void *arg)
{
	struct call *c = arg;

	if (sandbox_barrier(sb, c) < 0)
		log_error("%s: not all that was written reached the sandbox: %s", sandbox_name(sb),
			c->fault.message ? c->fault.message : "the link is down");
	return true;
}

static void drain(struct program *p)
{
	struct call c;

	call_init(&c, 0);
	call_end_by(&c, call_now_ms() + p->options.drain_ms);
	server_each(p->server, drain_one, &c);
	call_destroy(&c);
}

static void *signal_thread(void *arg)
{
	struct program *p = arg;
	int sig;

	while (sigwait(&p->stops, &sig) != 0)
		;
	if (sig == SIGUSR2)
		return NULL;
	log_info("signal %d: draining and ending", sig);
	drain(p);
	if (mount_detach(p->options.mountpoint, false) < 0)
		(void)mount_detach(p->options.mountpoint, true); /* the program ends either way */
	p->mounted = false;
	front_stop(p->front);
	return NULL;
}

/* --- the parts --- */

static int say(const struct call *c, int err)
{
	const char *message = c->fault.message ? c->fault.message : strerror(-err);
	AUTO_BUF line = BUF_INIT;
	/* A server's words may be in it. */
	shown_add(&line, message, strlen(message), SHOWN_KEEP);
	fprintf(stderr, "sandboxfs: %s\n", line.data ? line.data : strerror(-err));
	return err;
}

static int bring_up(struct program *p)
{
	struct node *root = NULL;
	struct call c;
	int err;

	call_init(&c, 0);
	err = http_new(&p->http);
	if (!err)
		err = server_new(&p->options, p->http, &c, &p->server);
	if (!err)
		err = root_node_new(p->server, &c, &root);
	if (err)
		say(&c, err);
	call_destroy(&c);
	if (err)
		return err;
	err = front_new(root, &p->front);
	if (!err)
		err = mount_make(p->front, &p->options);
	if (err) {
		fprintf(stderr, "sandboxfs: %s: the mount could not be made\n", p->options.mountpoint);
		return err;
	}
	p->mounted = true;
	if (p->lock >= 0)
		close(steal_fd(&p->lock));
	if (p->lifeline >= 0)
		mount_watch_begin(p->lifeline);
	err = mount_announce(p->options.mountpoint, &p->announced);
	if (err) /* it works without; only -u will not find the program */
		log_error("%s: cannot be announced: %s", p->options.mountpoint, strerror(-err));
	server_set_front(p->server, p->front);
	return 0;
}

static void take_down(struct program *p)
{
	if (p->server)
		server_set_front(p->server, NULL);
	if (p->server)
		server_end_sandboxes(p->server);
	front_free(p->front);
	server_free(p->server);
	http_free(p->http);
	curl_global_cleanup();
}

static int serve(struct program *p)
{
	int err;

	sigaddset(&p->stops, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &p->stops, NULL);
	err = pthread_create(&p->signals, NULL, signal_thread, p);
	if (err)
		return -err;
	err = front_serve(p->front);
	/* The mount is gone, and its device's number is the next one's, which may not wait until this one has drained. */
	if (p->announced >= 0)
		close(steal_fd(&p->announced));
	pthread_kill(p->signals, SIGUSR2);
	pthread_join(p->signals, NULL);
	drain(p);
	return err;
}

/* --- the background --- */

/* In the parent: waits for the child's word. The exit status; a mount that does not work is taken away again. */
static int wait_for_child(int fd, pid_t child, const char *mountpoint)
{
	struct statfs st;
	char ok = 0;
	ssize_t n;

	while ((n = read(fd, &ok, 1)) < 0 && errno == EINTR)
		;
	if (n != 1)
		return 1; /* the child has said why */
	/* What says that it works has worked once. */
	if (statfs(mountpoint, &st) < 0) {
		fprintf(
			stderr, "sandboxfs: %s: the mount does not answer: %s\n", mountpoint, strerror(errno));
		kill(child, SIGTERM); /* not waited for yet: the number is its own */
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
		return 1;
	}
	return 0;
}

static void leave_terminal(int *ready)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_set_to(LOG_TO_SYSLOG);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		if (null > 2)
			close(null);
	}
	if (write(*ready, "1", 1) != 1)
		log_error("the parent is gone");
	close(steal_fd(ready));
}

/* Forks unless in the foreground. In the parent: returns its exit status. In the child: -1 and *ready. */
static int go_to_background(struct program *p, int *ready)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return fprintf(stderr, "sandboxfs: %s\n", strerror(errno)), 1;
	pid = fork();
	if (pid < 0)
		return fprintf(stderr, "sandboxfs: fork: %s\n", strerror(errno)), 1;
	if (pid > 0) {
		int status;
		close(fds[1]);
		status = wait_for_child(fds[0], pid, p->options.mountpoint);
		close(fds[0]);
		return status;
	}
	close(fds[0]);
	*ready = fds[1];
	setsid();
	return -1;
}

static int run(struct program *p)
{
	AUTO_FD int ready = -1;
	int err, status;

	if (!p->options.foreground && (status = go_to_background(p, &ready)) >= 0)
		return status;
	log_set_to(p->options.foreground ? LOG_TO_STDERR : LOG_TO_STDERR_ERRORS);
	log_set_level(p->options.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	err = p->options.auto_unmount ? mount_watch(p->options.mountpoint, &p->lifeline) : 0;
	if (err)
		return fprintf(stderr, "sandboxfs: auto_unmount: %s\n", strerror(-err)), 1;
	set_signals(p);
	raise_files(p);
	if (chdir("/") < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return fprintf(stderr, "sandboxfs: the program could not be set up\n"), 1;
	err = bring_up(p);
	if (!err) {
		if (!p->options.foreground)
			leave_terminal(&ready);
		err = serve(p);
	}
	if (p->mounted && err)
		(void)mount_detach(p->options.mountpoint, true); /* a failed session leaves no dead mount */
	take_down(p);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct program p = {.announced = -1, .lifeline = -1, .lock = -1};
	int status = 2;

	if (options_parse(argc, argv, &p.options) == 0) {
		if (p.options.help) {
			options_help(stdout);
			status = 0;
		} else if (p.options.version) {
			printf("sandboxfs %s\n", SANDBOXFS_VERSION);
			status = 0;
		} else if (p.options.unmount) {
			status = mount_end(&p.options);
		} else if (mount_prepare(&p.options, &p.lock) == 0) {
			status = run(&p);
		} else {
			status = 1;
		}
	}
	options_release(&p.options);
	return status;
}

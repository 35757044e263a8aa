/*
 * The log (log.h). Owns the ring of the newest lines and the level, at file scope and under one
 * mutex: a library's callback must be able to log without being handed a context. Offers lines in
 * memory and copies each to stderr or syslog. Must not wait for anything but these.
 */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>

#include "cleanup.h"

enum {
	LOG_LINES = 1000,
	LOG_LINE_MAX = 2048 /* a line may hold what a server said: bounded, whatever it is */
};

static struct {
	pthread_mutex_t lock;
	char *line[LOG_LINES]; /* under lock; ring, oldest at next when full */
	size_t next, count;    /* under lock */
	enum log_to to;        /* under lock */
	atomic_int level;
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER, .to = LOG_TO_STDERR, .level = LOG_LEVEL_INFO};

void log_set_level(enum log_level l)
{
	atomic_store(&the_log.level, (int)l);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load(&the_log.level);
}

void log_set_to(enum log_to to)
{
	AUTO_UNLOCK(&the_log.lock);
	if (to == LOG_TO_SYSLOG && the_log.to != to)
		openlog("sandboxfs", LOG_PID, LOG_DAEMON);
	the_log.to = to;
}

/* U+0080 to U+009f, of two bytes in UTF-8: a terminal obeys them too. */
static bool is_control(const unsigned char *p, size_t n)
{
	return *p < 0x20 || *p == 0x7f || (n > 1 && *p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0);
}

/* One line stays one line, and a terminal that shows it is not steered by what a server sent. */
static void make_harmless(char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!is_control((const unsigned char *)s + i, n - i))
			continue;
		if ((unsigned char)s[i] == 0xc2)
			s[i++] = ' ';
		s[i] = ' ';
	}
}

static void add_time(struct buf *line)
{
	struct timespec now;
	struct tm tm;
	char text[40];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_add(line, text, n);
	buf_printf(line, ".%03ldZ", now.tv_nsec / 1000000);
}

static void log_line(
	enum log_level level, const char *word, int priority, const char *fmt, va_list ap)
{
	if ((int)level > atomic_load(&the_log.level))
		return;
	int saved = errno;
	AUTO_BUF b = BUF_INIT;
	add_time(&b);
	buf_printf(&b, " %s ", word);
	size_t head = b.size;
	buf_vprintf(&b, fmt, ap);
	if (!buf_error(&b)) {
		if (b.size - head > LOG_LINE_MAX) {
			b.size = head + LOG_LINE_MAX;
			buf_str(&b, "...");
		}
		while (b.size > head && b.data[b.size - 1] == '\n')
			b.data[--b.size] = 0;
		make_harmless(b.data, b.size);
	}
	char *text = buf_steal(&b);
	if (text) {
		AUTO_UNLOCK(&the_log.lock);
		if (the_log.to == LOG_TO_SYSLOG)
			syslog(priority, "%s", text + head);
		else if (the_log.to == LOG_TO_STDERR || level == LOG_LEVEL_ERROR)
			fprintf(stderr, "sandboxfs: %s\n", text + head);
		free(the_log.line[the_log.next]);
		the_log.line[the_log.next] = text;
		the_log.next = (the_log.next + 1) % LOG_LINES;
		if (the_log.count < LOG_LINES)
			the_log.count++;
	}
	errno = saved;
}

void log_error(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	log_line(LOG_LEVEL_ERROR, "error", LOG_ERR, fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	log_line(LOG_LEVEL_INFO, "info", LOG_INFO, fmt, ap);
	va_end(ap);
}

void log_debug(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	log_line(LOG_LEVEL_DEBUG, "debug", LOG_DEBUG, fmt, ap);
	va_end(ap);
}

void log_describe(struct buf *out)
{
	AUTO_UNLOCK(&the_log.lock);
	size_t first = (the_log.next + LOG_LINES - the_log.count) % LOG_LINES;
	for (size_t i = 0; i < the_log.count; i++) {
		buf_str(out, the_log.line[(first + i) % LOG_LINES]);
		buf_char(out, '\n');
	}
}

/*
 * What the sanitizers do in programs that get an empty environment: the server inside a sandbox. Linked into
 * sanitizer builds only. Reports go to the one place that the test outside can see; the tests' own ASAN_OPTIONS,
 * TSAN_OPTIONS, UBSAN_OPTIONS win where they are set. Leaks are looked for by tracing the process, which
 * a server that is closed to ptrace refuses: the unit tests look for its leaks.
 *
 * One thing is suppressed. An answer to the kernel is complete inside of writev(2); the program that waited for it may close
 * the file and the release free the bytes before that writev has returned here. The sanitizers look at the
 * bytes after the call, and complain. Seen by any reader of a short file under load.
 */
const char *__asan_default_options(void);
const char *__asan_default_suppressions(void);
const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:log_path=/workspace/.sanitizer";
}

const char *__asan_default_suppressions(void)
{
	return "interceptor_via_lib:libfuse3.so\n";
}

const char *__tsan_default_options(void)
{
	return "log_path=/workspace/.sanitizer";
}

const char *__tsan_default_suppressions(void)
{
	return "race:writev\n";
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1:log_path=/workspace/.sanitizer";
}

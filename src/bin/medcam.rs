//! The `medcam` program.

fn main() -> std::process::ExitCode {
    medcam::cli::run()
}

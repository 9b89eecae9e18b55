//! clip-retrieval's contract, flags and environment variables, and the end of the process.

use super::*;

#[test]
fn clip_retrievals_contract_is_kept() {
    let world = World::new();
    let server = world.serve(&[]);
    assert_eq!(server.get("/indices-list").ok(), json!(["m"]));
    let ask = |body: Value| server.send("POST", "/knn-service", &[], body.to_string().as_bytes());
    let found = ask(json!({"text": "a dog", "image": null, "image_url": null, "embedding_input": null, "deduplicate": false,
        "use_safety_model": true, "use_violence_detector": true, "indice_name": "m", "use_mclip": false, "aesthetic_score": 9,
        "aesthetic_weight": 0.5, "modality": "image", "num_images": 2, "num_result_ids": 4}))
    .ok();
    let retrieved = server.post_json("/v1/retrieve", &json!({"text": "a dog", "n": 4})).ok();
    let pairs = &retrieved["results"][0]["pairs"];
    for i in 0..4 {
        assert_eq!((&found[i]["id"], &found[i]["similarity"]), (&pairs[i]["id"], &pairs[i]["similarity"]));
    }
    assert_eq!(found[1]["caption"], pairs[1]["caption"]);
    let jpeg = STANDARD.decode(found[0]["image"].as_str().unwrap()).unwrap();
    assert_eq!(&jpeg[..3], [0xff, 0xd8, 0xff]);
    assert_eq!(found[2].as_object().unwrap().len(), 2, "past num_images there are id and similarity");
    // Both captions of a picture have its embedding: one is left.
    let all = ask(
        json!({"image": world.base64("3.png"), "modality": "image", "num_images": 16, "indice_name": null}),
    )
    .ok();
    let unique = ask(
        json!({"image": world.base64("3.png"), "modality": "image", "num_images": 16, "indice_name": null, "deduplicate": true}),
    );
    let unique = unique.ok();
    assert_eq!(all.as_array().unwrap().len(), 16);
    assert!(unique.as_array().unwrap().len() <= 8);
    assert_eq!(unique[0], all[0]);
    let metadata = server
        .send("POST", "/metadata", &[], json!({"indice_name": "m", "ids": [5, 0]}).to_string().as_bytes())
        .ok();
    assert_eq!(
        (&metadata[0]["id"], &metadata[1]["metadata"]["caption"]),
        (&json!(5), &json!("a cat number 0"))
    );
    ask(json!({"text": "a", "modality": "image", "num_images": 2, "indice_name": "laion"}))
        .fails(404, "not_found");
    ask(json!({"modality": "image", "num_images": 2, "indice_name": null})).fails(400, "invalid_request");
    ask(json!({"image_url": "http://127.0.0.1/", "modality": "image", "num_images": 2, "indice_name": null}))
        .fails(403, "disabled");
    // Our own client of that contract.
    let url = format!("knn+{}?index=m", server.url);
    let labels = LABELS.join(",");
    let args = [
        "classify",
        "@query100.png",
        "--labels",
        &labels,
        "--memory",
        &url,
        "--method",
        "captions",
        &world.tiny,
        "--format",
        "json",
    ];
    let remote: Value = serde_json::from_str(&world.run(&args).ok()).unwrap();
    let local = world.classified("query100.png", &["--method", "captions"]);
    assert_eq!(remote[0]["captions"].as_array().unwrap().len(), local["captions"].as_array().unwrap().len());
    assert_eq!(remote[0]["predictions"][0]["label"], local["predictions"][0]["label"]);
}

#[test]
fn every_flag_has_an_environment_variable_and_mistakes_are_told_before_anything_is_opened() {
    let world = World::new();
    let help = world.run(&["serve", "--help"]).ok();
    let options = help
        .lines()
        .filter(|line| line.trim_start().starts_with("--") || line.trim_start().starts_with("-k"));
    for option in options {
        let name =
            option.trim_start().split([' ', '[']).find(|word| word.starts_with("--")).unwrap_or_default();
        if ["--help", "--version"].contains(&name) {
            continue;
        }
        let after = help.split(option).nth(1).unwrap();
        let own = after.split("\n      --").next().unwrap();
        assert!(own.contains("[env: XMORE_"), "{name}");
    }
    let message = world.run(&["serve", "--addr", "0.0.0.0:0", "--memory", "@nowhere"]).fails(2);
    assert!(message.contains("--api-key") && message.contains("--allow-remote"), "{message}");
    world.run(&["serve", "--memory", "@nowhere"]).fails(1);
    world.run(&["serve", "--memory", "@m", "--save-label-sets"]).fails(2);
    world.run(&["serve", "--memory", "@m", "-k", "1,2"]).fails(2);
    world.run(&["serve", "--memory", "@m", "--allow-origin", "example.org"]).fails(2);
    let server = world.run(&["serve"]).env("XMORE_MEMORY", world.path("m")).env("XMORE_ADDR", "127.0.0.1:0");
    let server = server.env("XMORE_K", "7").env("XMORE_API_KEY", "one,two").serve();
    server.get("/v1/info").fails(401, "unauthorized");
    let info = server.get_with("/v1/info", &[("authorization", "Bearer two")]).ok();
    assert_eq!(info["retrieval"]["k"], 7);
    let taken = world.run(&["serve", "--memory", "@m", "--addr", server.addr()]).fails(1);
    assert!(taken.contains("cannot listen on"), "{taken}");
}

#[test]
fn a_stop_answers_accepted_requests_and_refuses_the_rest() {
    let world = World::new();
    let server = world.serve(&["--max-batch", "4", "--queue", "64"]);
    let query = format!("/v1/classify?labels={}", listed());
    let image = world.bytes("query100.png");
    server.post(&query, "image/png", &image).ok();
    let statuses: Vec<Vec<u16>> = std::thread::scope(|scope| {
        let ask = || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut statuses = Vec::new();
            loop {
                let request =
                    agent.post(format!("{}{query}", server.url)).header("content-type", "image/png");
                match request.send(&image[..]) {
                    Ok(answer) => statuses.push(answer.status().as_u16()),
                    // Only refused connections: never one that is cut off.
                    Err(ureq::Error::ConnectionFailed) => return statuses,
                    Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        return statuses;
                    }
                    Err(error) => panic!("{error:?} after {} answers", statuses.len()),
                }
            }
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        std::thread::sleep(std::time::Duration::from_millis(300));
        server.signal("TERM");
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for statuses in &statuses {
        let answered = statuses.iter().take_while(|status| [200, 429].contains(status)).count();
        assert!(answered > 0, "{statuses:?}");
        assert!(statuses[answered..].iter().all(|status| *status == 503), "{statuses:?}");
    }
    let mut server = server;
    let (code, said) = server.end();
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
